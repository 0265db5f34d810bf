package rtnl

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Route is an entry of the main routing table, or of Table.
type Route struct {
	Dst      netip.Prefix // 0.0.0.0/0 and ::/0 are the default routes
	Gateway  netip.Addr   // zero: on link
	Index    int          // outgoing interface
	MTU      int
	AdvMSS   int
	Priority int
	Table    int  // 0: main
	Scope    int  // 0: link for what is on link, else universe
	Protocol byte // who made it (ip route: "proto"); 0: static
	// Unreachable routes answer that the destination is not there, instead of sending anywhere.
	Unreachable bool
}

// NewRoute adds a route. Others to the same destination stay: in IPv4 the new one comes before them, in IPv6
// they share the traffic.
func NewRoute(r Route) *Message { return r.create(0) }

// AddRoute adds a route beside others. It is refused, Exists(err), when there is one to the same destination
// with the same priority.
func AddRoute(r Route) *Message { return r.create(Excl) }

func (r Route) create(flag uint16) *Message {
	m := newMessage(fmt.Sprintf("add route %s", r.Dst), unix.RTM_NEWROUTE, Create|flag, r.header())
	r.target(m)
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

// DeleteRoute deletes the route with this destination, target and protocol; Gone(err) when there is none.
func DeleteRoute(r Route) *Message {
	m := newMessage(fmt.Sprintf("delete route %s", r.Dst), unix.RTM_DELROUTE, 0, r.header())
	r.target(m)
	if r.Priority > 0 {
		m.Uint32(unix.RTA_PRIORITY, uint32(r.Priority))
	}
	return m
}

func (r Route) target(m *Message) {
	m.Bytes(unix.RTA_DST, r.Dst.Addr().AsSlice())
	if r.Index > 0 && !r.Unreachable {
		m.Uint32(unix.RTA_OIF, uint32(r.Index))
	}
	if r.Gateway.IsValid() {
		m.Bytes(unix.RTA_GATEWAY, r.Gateway.AsSlice())
	}
}

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
	if r.Unreachable {
		header[6], header[7] = unix.RT_SCOPE_UNIVERSE, unix.RTN_UNREACHABLE
	}

	return header
}

func (r Route) scope() int {
	if r.Scope == 0 && !r.Gateway.IsValid() {
		return unix.RT_SCOPE_LINK
	}
	return r.Scope
}

// Routes lists the routes of the main table that were made under a protocol number.
func (c *Conn) Routes(protocol byte) ([]Route, error) {
	return c.routes(protocol, func(r Route) bool { return r.Protocol == protocol })
}

// DefaultRoutes lists the default routes of the main table.
func (c *Conn) DefaultRoutes() ([]Route, error) {
	return c.routes(0, func(r Route) bool { return r.Dst.Bits() == 0 && !r.Unreachable })
}

// routes lists what pick takes of the main table. A protocol other than 0 is sent along, so that newer
// kernels send nothing else: a router may have a million routes.
func (c *Conn) routes(protocol byte, pick func(Route) bool) ([]Route, error) {
	var all []Route
	for _, f := range []byte{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0], header[5] = f, protocol
		err := c.Dump(newMessage("list routes", unix.RTM_GETROUTE, 0, header), func(_ uint16, body []byte) {
			if r, ok := parseRoute(body); ok && pick(r) {
				all = append(all, r)
			}
		})
		if err != nil {
			return nil, err
		}
	}

	return all, nil
}

// parseRoute reads a route of the main table. One with several next hops, as IPv6 routes to one destination
// are shown, has the first.
func parseRoute(body []byte) (Route, bool) {
	r, ok := parseAnyRoute(body)
	return r, ok && r.Table == unix.RT_TABLE_MAIN
}

func parseAnyRoute(body []byte) (Route, bool) {
	if len(body) < unix.SizeofRtMsg {
		return Route{}, false
	}

	r := Route{
		Protocol:    body[5],
		Scope:       int(body[6]),
		Unreachable: body[7] == unix.RTN_UNREACHABLE,
		Table:       int(body[4]),
	}

	dst := netip.IPv6Unspecified()
	if body[0] == unix.AF_INET {
		dst = netip.IPv4Unspecified()
	}

	Attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		switch {
		case kind == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(value)
		case kind == unix.RTA_GATEWAY:
			r.Gateway, _ = netip.AddrFromSlice(value)
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

// hops are the next hops of a route that has several (struct rtnexthop, rtnetlink(7)): interface and gateway.
func hops(body []byte) (all []Route) {
	if len(body) < unix.SizeofRtMsg {
		return nil
	}

	Attributes(body[unix.SizeofRtMsg:], func(kind uint16, value []byte) {
		if kind != unix.RTA_MULTIPATH {
			return
		}

		for len(value) >= unix.SizeofRtNexthop {
			size := int(native.Uint16(value))
			if size < unix.SizeofRtNexthop || size > len(value) {
				return
			}

			hop := Route{Index: int(native.Uint32(value[4:]))}
			Attributes(value[unix.SizeofRtNexthop:size], func(kind uint16, v []byte) {
				if kind == unix.RTA_GATEWAY {
					hop.Gateway, _ = netip.AddrFromSlice(v)
				}
			})

			all = append(all, hop)
			value = value[min(len(value), (size+3)&^3):]
		}
	})

	return all
}

// HasRoute reports whether there is a route to r's destination, in its table, that leaves by its interface,
// through its gateway if that is valid.
func (c *Conn) HasRoute(r Route) (bool, error) {
	if r.Table == 0 {
		r.Table = unix.RT_TABLE_MAIN
	}

	found := false
	header := make([]byte, unix.SizeofRtMsg)
	header[0] = family(r.Dst.Addr())
	err := c.Dump(newMessage(fmt.Sprintf("list routes to %s", r.Dst), unix.RTM_GETROUTE, 0, header),
		func(_ uint16, body []byte) {
			have, ok := parseAnyRoute(body)
			if !ok || have.Dst != r.Dst || have.Table != r.Table {
				return
			}

			for _, hop := range append(hops(body), have) {
				found = found || hop.Index == r.Index && (!r.Gateway.IsValid() || hop.Gateway == r.Gateway)
			}
		})

	return found, err
}
