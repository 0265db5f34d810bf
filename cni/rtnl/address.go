package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Address flags (IFA_F_*).
const (
	// NoDAD makes an IPv6 address usable at once, without duplicate address detection.
	NoDAD = unix.IFA_F_NODAD
	// NoPrefixRoute keeps the kernel from adding the route to the address's subnet.
	NoPrefixRoute = unix.IFA_F_NOPREFIXROUTE
)

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

func ifaddr(index int, prefix netip.Prefix) []byte {
	header := make([]byte, unix.SizeofIfAddrmsg)
	header[0] = family(prefix.Addr())
	header[1] = byte(prefix.Bits())
	native.PutUint32(header[4:], uint32(index))
	return header
}

// NewAddress gives an interface an address with its prefix length. IPv4 addresses get the broadcast address of the subnet.
func NewAddress(index int, prefix netip.Prefix, addressFlags uint32) *Message {
	m := newMessage(fmt.Sprintf("add address %s", prefix), unix.RTM_NEWADDR, Create|Excl, ifaddr(index, prefix))
	m.Bytes(unix.IFA_LOCAL, prefix.Addr().AsSlice()).Bytes(unix.IFA_ADDRESS, prefix.Addr().AsSlice())
	if prefix.Addr().Is4() {
		addressFlags &^= NoDAD
		if prefix.Bits() < 31 {
			m.Bytes(unix.IFA_BROADCAST, broadcast(prefix).AsSlice())
		}
	}
	return m.Uint32(unix.IFA_FLAGS, addressFlags)
}

func broadcast(p netip.Prefix) netip.Addr {
	a := p.Masked().Addr().As4()
	for i := p.Bits(); i < 32; i++ {
		a[i/8] |= 0x80 >> (i % 8)
	}
	return netip.AddrFrom4(a)
}

// DeleteAddress takes an address from an interface.
func DeleteAddress(index int, prefix netip.Prefix) *Message {
	return newMessage(fmt.Sprintf("delete address %s", prefix), unix.RTM_DELADDR, 0, ifaddr(index, prefix)).Bytes(unix.IFA_LOCAL, prefix.Addr().AsSlice())
}

// Addresses lists the global addresses of an interface.
func (c *Conn) Addresses(index int) ([]netip.Prefix, error) {
	var all []netip.Prefix
	header := make([]byte, unix.SizeofIfAddrmsg)
	native.PutUint32(header[4:], uint32(index))
	err := c.Dump(newMessage(fmt.Sprintf("list addresses of interface %d", index), unix.RTM_GETADDR, 0, header), func(_ uint16, body []byte) {
		if len(body) < unix.SizeofIfAddrmsg || int(native.Uint32(body[4:])) != index || body[3] != unix.RT_SCOPE_UNIVERSE {
			return
		}
		var local, address netip.Addr
		Attributes(body[unix.SizeofIfAddrmsg:], func(kind uint16, value []byte) {
			switch kind {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(value)
			case unix.IFA_ADDRESS:
				address, _ = netip.AddrFromSlice(value)
			}
		})
		if !local.IsValid() { // IPv6 has no IFA_LOCAL unless there is a peer
			local = address
		}
		if local.IsValid() {
			all = append(all, netip.PrefixFrom(local, int(body[1])))
		}
	})
	return all, err
}

// Route is an entry of the main routing table, or of Table.
type Route struct {
	Dst      netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Gateway  netip.Addr   // zero: on link
	Index    int          // outgoing interface
	MTU      int
	AdvMSS   int
	Priority int
	Table    int // 0: main
	Scope    int // 0: link for what is on link, else universe
}

// NewRoute adds a route. It replaces one to the same destination, so that it can be repeated.
func NewRoute(r Route) *Message {
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(r.Dst.Addr())
	header[1] = byte(r.Dst.Bits())
	header[4] = unix.RT_TABLE_MAIN
	header[5] = unix.RTPROT_STATIC
	header[6] = byte(r.scope())
	header[7] = unix.RTN_UNICAST
	m := newMessage(fmt.Sprintf("add route %s", r.Dst), unix.RTM_NEWROUTE, Create|Replace, header)
	m.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice()).Uint32(unix.RTA_OIF, uint32(r.Index))
	if r.Gateway.IsValid() {
		m.Bytes(unix.RTA_GATEWAY, r.Gateway.AsSlice())
	}
	if r.Priority > 0 {
		m.Uint32(unix.RTA_PRIORITY, uint32(r.Priority))
	}
	if r.Table > 0 {
		m.Uint32(unix.RTA_TABLE, uint32(r.Table))
	}
	if r.MTU > 0 || r.AdvMSS > 0 {
		m.Nest(unix.RTA_METRICS)
		if r.MTU > 0 {
			m.Uint32(unix.RTAX_MTU, uint32(r.MTU))
		}
		if r.AdvMSS > 0 {
			m.Uint32(unix.RTAX_ADVMSS, uint32(r.AdvMSS))
		}
		m.End()
	}
	return m
}

func (r Route) scope() int {
	if r.Scope == 0 && !r.Gateway.IsValid() {
		return unix.RT_SCOPE_LINK
	}
	return r.Scope
}

// HasRoute tells whether a route to dst leaves by the interface index, through gateway if that is valid.
func (c *Conn) HasRoute(dst netip.Prefix, gateway netip.Addr, index int) (bool, error) {
	found := false
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(dst.Addr())
	err := c.Dump(newMessage(fmt.Sprintf("list routes to %s", dst), unix.RTM_GETROUTE, 0, header), func(_ uint16, body []byte) {
		if len(body) < unix.SizeofRtMsg || int(body[1]) != dst.Bits() {
			return
		}
		to, via, out := netip.Addr{}, netip.Addr{}, 0
		Attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
			switch {
			case kind == unix.RTA_DST:
				to, _ = netip.AddrFromSlice(value)
			case kind == unix.RTA_GATEWAY:
				via, _ = netip.AddrFromSlice(value)
			case kind == unix.RTA_OIF && len(value) == 4:
				out = int(native.Uint32(value))
			}
		})
		if !to.IsValid() && dst.Bits() == 0 {
			to = dst.Addr()
		}
		found = found || to == dst.Addr() && out == index && (!gateway.IsValid() || via == gateway)
	})
	return found, err
}
