// Package conntrack deletes tracked connections to host ports: their translation was decided with their first
// packet, and is kept for as long as packets come.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/nft"
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

// Port is a port of this host that connections were sent to.
type Port struct {
	// Is6 says whether it is one of IPv6.
	Is6 bool
	// Address is that of the host; zero means all of them.
	Address netip.Addr
	Number  uint16
}

// ForgetUDP deletes the tracked connections to some UDP ports. conn is one to netfilter.
func ForgetUDP(conn *netlink.Conn, ports []Port) error {
	var v4, v6 []Port
	for _, p := range ports {
		if p.Is6 {
			v6 = append(v6, p)
		} else {
			v4 = append(v4, p)
		}
	}

	err := errors.Join(forget(conn, unix.NFPROTO_IPV4, v4), forget(conn, unix.NFPROTO_IPV6, v6))
	if err != nil {
		return fmt.Errorf("forget tracked connections to UDP host ports: %w", err)
	}

	return nil
}

// batch bounds how many entries are deleted at once.
const batch = 128

// forget deletes the connections of an address family to some UDP host ports.
func forget(conn *netlink.Conn, nfproto byte, ports []Port) error {
	if len(ports) == 0 {
		return nil
	}

	var deletions []*netlink.Message
	err := List(conn, nfproto, func(c Connection) {
		if !c.isTo(ports) {
			return
		}

		m := netlink.NewMessage("delete tracked connection", ctDelete, 0, nft.Header(nfproto))
		deletions = append(deletions, m.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, c.tuple))
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		// This kernel has no netlink for connection tracking: nothing can be deleted.
		return nil
	}

	if err != nil {
		return err
	}

	for part := range slices.Chunk(deletions, batch) {
		errs, err := conn.Do(part...)
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

// Connection is what the first packet of a tracked connection was sent to.
type Connection struct {
	Protocol byte
	Address  netip.Addr
	Port     uint16
	// tuple is how the kernel names it.
	tuple []byte
}

// isTo reports whether c leads to one of some UDP ports.
func (c Connection) isTo(ports []Port) bool {
	return c.Protocol == unix.IPPROTO_UDP && slices.ContainsFunc(ports, func(p Port) bool {
		return c.Port == p.Number && (!p.Address.IsValid() || p.Address == c.Address)
	})
}

// List calls visit with each tracked connection of an address family.
func List(conn *netlink.Conn, nfproto byte, visit func(Connection)) error {
	m := netlink.NewMessage("list tracked connections", ctGet, 0, nft.Header(nfproto))
	return conn.Dump(m, func(_ uint16, body []byte) { visit(parse(body)) })
}

// parse reads the tuple of a connection's first packet.
func parse(body []byte) (c Connection) {
	nft.Attributes(body, func(kind uint16, value []byte) {
		if kind == ctaTupleOrig {
			c.tuple = value
		}
	})

	netlink.Attributes(c.tuple, func(kind uint16, nest []byte) {
		netlink.Attributes(nest, func(inner uint16, value []byte) {
			switch {
			case kind == ctaTupleIP && (inner == ctaIPv4Dst || inner == ctaIPv6Dst):
				c.Address, _ = netip.AddrFromSlice(value)
			case kind == ctaTupleProto && inner == ctaProtoNum && len(value) == 1:
				c.Protocol = value[0]
			case kind == ctaTupleProto && inner == ctaProtoDst && len(value) == 2:
				c.Port = binary.BigEndian.Uint16(value)
			}
		})
	})

	return c
}
