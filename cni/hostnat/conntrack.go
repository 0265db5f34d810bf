package hostnat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
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

	nfgenmsgSize = 4
)

// flushUDP forgets the connections to UDP host ports. A client that keeps sending would otherwise keep the
// connection tracking entry of before alive forever: past a new pod, or to one that is gone.
func flushUDP(ports []Port) error {
	families := map[byte][]Port{}
	for _, p := range ports {
		if p.Protocol != "udp" {
			continue
		}

		f := byte(unix.AF_INET6)
		if p.Pod.Addr().Is4() {
			f = unix.AF_INET
		}

		families[f] = append(families[f], p)
	}

	if len(families) == 0 {
		return nil
	}

	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return fmt.Errorf("open conntrack socket: %w", err)
	}
	defer func() { _ = conn.Close() }()

	for f, ports := range families {
		if err := flushFamily(conn, f, ports); err != nil {
			return fmt.Errorf("forget tracked connections to UDP host ports: %w", err)
		}
	}

	return nil
}

func flushFamily(conn *netlink.Conn, family byte, ports []Port) error {
	header := []byte{family, unix.NFNETLINK_V0, 0, 0}
	entries, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: ctGet, Flags: netlink.Request | netlink.Dump},
		Data:   header,
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		// no connection tracking netlink in this kernel: nothing can be forgotten
		return nil
	}

	if err != nil {
		return err
	}

	for _, e := range entries {
		tuple, t := original(e.Data)
		if tuple == nil || !t.matches(ports) {
			continue
		}

		attributes, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: ctaTupleOrig | netlink.Nested, Data: tuple},
		})
		if err != nil {
			return err
		}

		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: ctDelete, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(append([]byte(nil), header...), attributes...),
		})
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
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

func (d destination) matches(ports []Port) bool {
	for _, p := range ports {
		if d.protocol == unix.IPPROTO_UDP && d.port == p.HostPort &&
			(!p.HostIP.IsValid() || p.HostIP == d.address) {
			return true
		}
	}
	return false
}

// original returns the original tuple of an entry, raw and read.
func original(data []byte) (tuple []byte, d destination) {
	if len(data) < nfgenmsgSize {
		return nil, d
	}

	walk(data[nfgenmsgSize:], func(kind uint16, value []byte) {
		if kind == ctaTupleOrig {
			tuple = value
		}
	})

	walk(tuple, func(kind uint16, value []byte) {
		switch kind {
		case ctaTupleIP:
			walk(value, func(kind uint16, value []byte) {
				if kind == ctaIPv4Dst || kind == ctaIPv6Dst {
					d.address, _ = netip.AddrFromSlice(value)
				}
			})

		case ctaTupleProto:
			walk(value, func(kind uint16, value []byte) {
				switch {
				case kind == ctaProtoNum && len(value) == 1:
					d.protocol = value[0]
				case kind == ctaProtoDst && len(value) == 2:
					d.port = binary.BigEndian.Uint16(value)
				}
			})
		}
	})

	return tuple, d
}

func walk(data []byte, visit func(kind uint16, value []byte)) {
	decoder, err := netlink.NewAttributeDecoder(data)
	if err != nil {
		return
	}
	for decoder.Next() {
		visit(decoder.Type(), decoder.Bytes())
	}
}
