package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

// Route is an entry of a routing table.
type Route struct {
	// Dst is the destination; 0.0.0.0/0 and ::/0 are the default routes.
	Dst netip.Prefix
	// Gateway is the next hop; the zero Addr means that the destination is on link.
	Gateway netip.Addr
	// Src is the address that the host prefers to send from; the zero Addr leaves the choice to the kernel.
	Src netip.Addr
	// Index is that of the outgoing interface.
	Index    int
	MTU      int
	AdvMSS   int
	Priority int
	// Table is the number of the routing table; 0 is the main table.
	Table int
	// Scope 0 is link for what is on link, else universe.
	Scope int
	// Protocol says who made the route (ip route: "proto"); 0 is static.
	Protocol byte
	// Unreachable routes answer that the destination is unreachable, instead of sending anywhere.
	Unreachable bool
	// OnLink says that the gateway is reached by the interface although no network of that has it.
	OnLink bool
}

// NewRoute adds a route. Others to the same destination stay: in IPv4 the new one comes before them, in IPv6
// they share the traffic.
func NewRoute(r Route) *netlink.Message { return r.create(0) }

// AddRoute adds a route beside others; IsExist(err) when there is one to the same destination with the same
// priority.
func AddRoute(r Route) *netlink.Message { return r.create(netlink.Excl) }

func (r Route) create(flag uint16) *netlink.Message {
	op := fmt.Sprintf("add route %s", r.Dst)
	m := netlink.NewMessage(op, unix.RTM_NEWROUTE, netlink.Create|flag, r.header())
	r.appendTarget(m)
	if r.Src.IsValid() {
		m.Bytes(unix.RTA_PREFSRC, r.Src.AsSlice())
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

// ReplaceRoute adds a route in place of one to the same destination with the same priority.
func ReplaceRoute(r Route) *netlink.Message { return r.create(netlink.Replace) }

// DeleteRoute deletes the route with this destination, next hop, table, priority and protocol;
// IsNotExist(err) when there is none.
func DeleteRoute(r Route) *netlink.Message {
	op := fmt.Sprintf("delete route %s", r.Dst)
	m := netlink.NewMessage(op, unix.RTM_DELROUTE, 0, r.header())
	r.appendTarget(m)
	return m
}

// appendTarget appends what a route is found by.
func (r Route) appendTarget(m *netlink.Message) {
	m.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	if r.Index > 0 && !r.Unreachable {
		m.Uint32(unix.RTA_OIF, uint32(r.Index))
	}
	if r.Gateway.IsValid() {
		m.Bytes(unix.RTA_GATEWAY, r.Gateway.AsSlice())
	}
	if r.Priority > 0 {
		m.Uint32(unix.RTA_PRIORITY, uint32(r.Priority))
	}
	if r.Table > 0 {
		m.Uint32(unix.RTA_TABLE, uint32(r.Table))
	}
}

// header returns a struct rtmsg.
func (r Route) header() []byte {
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(r.Dst.Addr())
	header[1] = byte(r.Dst.Bits())
	header[4] = unix.RT_TABLE_MAIN
	header[5] = unix.RTPROT_STATIC
	if r.Protocol != 0 {
		header[5] = r.Protocol
	}

	header[6] = byte(r.scope())
	header[7] = unix.RTN_UNICAST
	if r.OnLink {
		native.PutUint32(header[8:], unix.RTNH_F_ONLINK)
	}
	if r.Unreachable {
		header[6] = unix.RT_SCOPE_UNIVERSE
		header[7] = unix.RTN_UNREACHABLE
	}

	return header
}

func (r Route) scope() int {
	if r.Scope == 0 && !r.Gateway.IsValid() {
		return unix.RT_SCOPE_LINK
	}
	return r.Scope
}

// Routes lists the routes of the main table that have a protocol number.
func (c *Conn) Routes(protocol byte) ([]Route, error) {
	return c.mainRoutes(protocol, func(r Route) bool { return r.Protocol == protocol })
}

// DefaultRoutes lists the default routes of the main table.
func (c *Conn) DefaultRoutes() ([]Route, error) {
	return c.mainRoutes(0, func(r Route) bool { return r.Dst.Bits() == 0 && !r.Unreachable })
}

// RoutesOf lists the routes of the main table that leave by an interface, but for those that the kernel has
// for itself: multicast, and link-local ones of IPv6.
func (c *Conn) RoutesOf(index int) ([]Route, error) {
	return c.mainRoutes(0, func(r Route) bool {
		return r.Index == index && !r.Dst.Addr().IsMulticast() && !r.Dst.Addr().IsLinkLocalUnicast()
	})
}

// Tables returns the numbers of the routing tables that have routes.
func (c *Conn) Tables() (map[int]bool, error) {
	used := map[int]bool{}
	_, err := c.routes(0, func(r Route) bool {
		used[r.Table] = true
		return false
	})
	return used, err
}

// mainRoutes lists the routes of the main table for which keep is true. A protocol other than 0 is sent
// along, so that newer kernels send nothing else: a router may have a million routes.
func (c *Conn) mainRoutes(protocol byte, keep func(Route) bool) ([]Route, error) {
	return c.routes(protocol, func(r Route) bool { return r.Table == unix.RT_TABLE_MAIN && keep(r) })
}

// routes lists the routes of all tables for which keep is true.
func (c *Conn) routes(protocol byte, keep func(Route) bool) ([]Route, error) {
	var all []Route
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		header[5] = protocol

		err := c.Dump(netlink.NewMessage("list routes",
			unix.RTM_GETROUTE, 0, header), func(_ uint16, body []byte) {
			if r, ok := parseRoute(body); ok && keep(r) {
				all = append(all, r)
			}
		})
		if err != nil {
			return nil, err
		}
	}

	return all, nil
}

// InterfaceTo returns the index of the interface by which the host reaches an address.
func (c *Conn) InterfaceTo(a netip.Addr) (index int, err error) {
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(a)
	header[1] = byte(a.BitLen())
	m := netlink.NewMessage(fmt.Sprintf("look up route to %s", a), unix.RTM_GETROUTE, 0, header).
		Bytes(unix.RTA_DST, a.AsSlice())
	err = c.Get(m, func(_ uint16, body []byte) {
		if r, ok := parseRoute(body); ok {
			index = r.Index
		}
	})
	return index, err
}

// HasRoute reports whether there is a route to r's destination, in its table, that leaves by its interface,
// through its gateway if that is valid.
func (c *Conn) HasRoute(r Route) (bool, error) {
	if r.Table == 0 {
		r.Table = unix.RT_TABLE_MAIN
	}

	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(r.Dst.Addr())

	found := false
	op := fmt.Sprintf("list routes to %s", r.Dst)
	err := c.Dump(netlink.NewMessage(op, unix.RTM_GETROUTE, 0, header), func(_ uint16, body []byte) {
		if leads(body, r) {
			found = true
		}
	})

	return found, err
}

// leads reports whether the route in body is to the destination of r and has a next hop like r's.
func leads(body []byte, r Route) bool {
	have, ok := parseRoute(body)
	if !ok || have.Dst != r.Dst || have.Table != r.Table {
		return false
	}
	for _, hop := range append(nextHops(body), have) {
		if hop.Index == r.Index && (!r.Gateway.IsValid() || hop.Gateway == r.Gateway) {
			return true
		}
	}
	return false
}

// parseRoute reads a route. The next hops of one that has several are not in it: see nextHops.
func parseRoute(body []byte) (r Route, ok bool) {
	if len(body) < unix.SizeofRtMsg {
		return r, false
	}

	r = Route{
		Protocol:    body[5],
		Scope:       int(body[6]),
		Unreachable: body[7] == unix.RTN_UNREACHABLE,
		OnLink:      native.Uint32(body[8:])&unix.RTNH_F_ONLINK != 0,
		Table:       int(body[4]),
	}

	// A default route has no destination attribute.
	dst := netip.IPv6Unspecified()
	if body[0] == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}

	netlink.Attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case kind == unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(value)
		case kind == unix.RTA_PREFSRC:
			r.Src, _ = netip.AddrFromSlice(value)
		case kind == unix.RTA_METRICS:
			r.parseMetrics(value)
		case len(value) != 4:
		case kind == unix.RTA_OIF:
			r.Index = int(native.Uint32(value))
		case kind == unix.RTA_PRIORITY:
			r.Priority = int(native.Uint32(value))
		case kind == unix.RTA_TABLE:
			r.Table = int(native.Uint32(value))
		}
	})

	r.Dst = netip.PrefixFrom(dst, int(body[1]))
	return r, r.Dst.IsValid()
}

func (r *Route) parseMetrics(data []byte) {
	netlink.Attributes(data, func(kind uint16, value []byte) {
		switch {
		case len(value) != 4:
		case kind == unix.RTAX_MTU:
			r.MTU = int(native.Uint32(value))
		case kind == unix.RTAX_ADVMSS:
			r.AdvMSS = int(native.Uint32(value))
		}
	})
}

// nextHops reads the next hops of a route that has several (struct rtnexthop, rtnetlink(7)): their Index and
// Gateway. IPv6 routes to one destination are shown so.
func nextHops(body []byte) (all []Route) {
	if len(body) < unix.SizeofRtMsg {
		return nil
	}
	netlink.Attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		if kind == unix.RTA_MULTIPATH {
			all = parseNextHops(value)
		}
	})
	return all
}

func parseNextHops(data []byte) (all []Route) {
	for len(data) >= unix.SizeofRtNexthop {
		size := int(native.Uint16(data))
		if size < unix.SizeofRtNexthop || size > len(data) {
			return all
		}

		hop := Route{Index: int(native.Uint32(data[4:]))}
		netlink.Attributes(data[unix.SizeofRtNexthop:size], func(kind uint16, value []byte) {
			if kind == unix.RTA_GATEWAY {
				hop.Gateway, _ = netip.AddrFromSlice(value)
			}
		})

		all = append(all, hop)
		data = data[min(len(data), (size+3)&^3):]
	}

	return all
}
