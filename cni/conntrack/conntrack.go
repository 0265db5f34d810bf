// Package conntrack deletes tracked connections. What was decided with their first packet, such as the
// translation of a host port or that a network policy allows it, is kept for as long as packets come.
package conntrack

import (
	"bytes"
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
	ctaTupleReply = 2
	ctaID         = 12
	ctaTupleIP    = 1
	ctaIPv4Src    = 1
	ctaIPv4Dst    = 2
	ctaIPv6Src    = 3
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
	// Pod is who answers; zero means anybody.
	Pod netip.Addr
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

	var found []Connection
	err := List(conn, nfproto, func(c Connection) {
		if c.isTo(ports) {
			found = append(found, c.clone())
		}
	})
	return errors.Join(err, Delete(conn, found))
}

// Delete deletes tracked connections, of which some may have ended.
func Delete(conn *netlink.Conn, all []Connection) error {
	for part := range slices.Chunk(all, batch) {
		var deletions []*netlink.Message
		for _, c := range part {
			deletions = append(deletions, c.deletion())
		}

		errs, err := conn.Do(deletions...)
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

// deletion deletes a connection, and not a later one of the same name.
func (c Connection) deletion() *netlink.Message {
	nfproto := byte(unix.NFPROTO_IPV4)
	if c.Address.Is6() {
		nfproto = unix.NFPROTO_IPV6
	}
	m := netlink.NewMessage("delete tracked connection", ctDelete, 0, nft.Header(nfproto))
	m.Bytes(ctaTupleOrig|unix.NLA_F_NESTED, c.tuple)
	if c.id != nil {
		m.Bytes(ctaID, c.id)
	}
	return m
}

// Of lists the connections of some addresses: those that they began, and those that they answer, also behind
// the address of a Service.
func Of(conn *netlink.Conn, addresses []netip.Addr) (found []Connection, err error) {
	wanted := map[netip.Addr]bool{}
	for _, a := range addresses {
		wanted[a] = true
	}
	err = List(conn, unix.NFPROTO_UNSPEC, func(c Connection) {
		if wanted[c.Source] || wanted[c.Answering] {
			found = append(found, c.clone())
		}
	})
	return found, err
}

// Connection is what the first packet of a tracked connection was sent to.
type Connection struct {
	Protocol byte
	Address  netip.Addr
	Port     uint16
	// Source is who has sent it, and Answering who answers: another one than Address where that is
	// translated.
	Source    netip.Addr
	Answering netip.Addr
	// tuple is how the kernel names it, and id tells it from a later one of the same name.
	tuple []byte
	id    []byte
}

// clone returns a connection to keep.
func (c Connection) clone() Connection {
	c.tuple, c.id = bytes.Clone(c.tuple), bytes.Clone(c.id)
	return c
}

// isTo reports whether c leads to one of some UDP ports.
func (c Connection) isTo(ports []Port) bool {
	return c.Protocol == unix.IPPROTO_UDP && slices.ContainsFunc(ports, func(p Port) bool {
		return c.Port == p.Number && (!p.Address.IsValid() || p.Address == c.Address) &&
			(!p.Pod.IsValid() || p.Pod == c.Answering)
	})
}

// List calls visit with each tracked connection of an address family, or of all with NFPROTO_UNSPEC. What it
// gets is valid during the call only. A kernel without netlink for connection tracking has none to show.
func List(conn *netlink.Conn, nfproto byte, visit func(Connection)) error {
	m := netlink.NewMessage("list tracked connections", ctGet, 0, nft.Header(nfproto))
	err := conn.Stream(m, func(_ uint16, body []byte) { visit(parse(body)) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) {
		return nil
	}
	return err
}

// parse reads the tuples of a connection: those of its first packet and of the answer.
func parse(body []byte) (c Connection) {
	nft.Attributes(body, func(kind uint16, value []byte) {
		switch kind {
		case ctaTupleOrig:
			c.tuple = value
		case ctaTupleReply:
			c.Answering = Connection{}.read(value).Source
		case ctaID:
			c.id = value
		}
	})
	return c.read(c.tuple)
}

// read reads a tuple.
func (c Connection) read(tuple []byte) Connection {
	netlink.Attributes(tuple, func(kind uint16, nest []byte) {
		netlink.Attributes(nest, func(inner uint16, value []byte) {
			switch {
			case kind == ctaTupleIP && (inner == ctaIPv4Src || inner == ctaIPv6Src):
				c.Source, _ = netip.AddrFromSlice(value)
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
