package hostnat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Message and attribute numbers of <linux/netfilter/nfnetlink_conntrack.h>.
const (
	ctGet    = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1
	ctDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig  = 1
	ctaTupleIP    = 1
	ctaIPv4Dst    = 2
	ctaIPv6Dst    = 4
	ctaTupleProto = 2
	ctaProtoNum   = 1
	ctaProtoDst   = 3
)

// forgetUDP deletes the tracked connections to UDP host ports. A client that keeps sending would otherwise
// keep its entry alive without end: past a new pod, or to one that has ended.
func (k kernel) forgetUDP(ports []Port) error {
	var v4, v6 []Port
	for _, p := range ports {
		switch {
		case p.Protocol != "udp":
		case p.Pod.Addr().Is4():
			v4 = append(v4, p)
		default:
			v6 = append(v6, p)
		}
	}

	err := errors.Join(k.forget(unix.NFPROTO_IPV4, v4), k.forget(unix.NFPROTO_IPV6, v6))
	if err != nil {
		return fmt.Errorf("forget tracked connections to UDP host ports: %w", err)
	}

	return nil
}

// batch bounds how many entries are deleted at once.
const batch = 128

// forget deletes the connections of an address family to some UDP host ports.
func (k kernel) forget(nfproto byte, ports []Port) error {
	if len(ports) == 0 {
		return nil
	}

	var deletions []*netlink.Message
	list := netlink.NewMessage("list tracked connections", ctGet, 0, nfgenmsg(nfproto))
	err := k.conn.Dump(list, func(_ uint16, body []byte) {
		tuple := originalTuple(body)
		if !parseTuple(tuple).isOneOf(ports) {
			return
		}

		m := netlink.NewMessage("delete tracked connection", ctDelete, 0, nfgenmsg(nfproto))
		deletions = append(deletions, m.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, tuple))
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		// This kernel has no netlink for connection tracking: nothing can be deleted.
		return nil
	}

	if err != nil {
		return err
	}

	for part := range slices.Chunk(deletions, batch) {
		errs, err := k.conn.Do(part...)
		if err != nil {
			return err
		}

		for _, err := range errs {
			if err != nil && !netlink.IsNotExist(err) {
				return err
			}
		}
	}

	return nil
}

// destination is what the first packet of a connection was sent to.
type destination struct {
	protocol byte
	address  netip.Addr
	port     uint16
}

// isOneOf reports whether d is one of some UDP host ports.
func (d destination) isOneOf(ports []Port) bool {
	return d.protocol == unix.IPPROTO_UDP && slices.ContainsFunc(ports, func(p Port) bool {
		return d.port == p.HostPort && (!p.HostIP.IsValid() || p.HostIP == d.address)
	})
}

// originalTuple returns the tuple of a connection's first packet, as the kernel sends it.
func originalTuple(body []byte) (tuple []byte) {
	attributes(body, func(kind uint16, value []byte) {
		if kind == ctaTupleOrig {
			tuple = value
		}
	})
	return tuple
}

func parseTuple(tuple []byte) (d destination) {
	netlink.Attributes(tuple, func(kind uint16, nest []byte) {
		netlink.Attributes(nest, func(inner uint16, value []byte) {
			switch {
			case kind == ctaTupleIP && (inner == ctaIPv4Dst || inner == ctaIPv6Dst):
				d.address, _ = netip.AddrFromSlice(value)
			case kind == ctaTupleProto && inner == ctaProtoNum && len(value) == 1:
				d.protocol = value[0]
			case kind == ctaTupleProto && inner == ctaProtoDst && len(value) == 2:
				d.port = binary.BigEndian.Uint16(value)
			}
		})
	})

	return d
}
