// Package rtnl has the messages of rtnetlink(7) that a container's network needs: links, addresses, routes
// and neighbours. Requests are built as netlink.Messages, so that a caller sends many of them at once.
package rtnl

import (
	"context"
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/netlink"
)

var native = binary.NativeEndian

// Conn is a connection to rtnetlink. Beside the calls of the transport (Do, Must, Close) it has those that
// read links, addresses and routes.
type Conn struct{ *netlink.Conn }

// Open returns a connection in the network namespace of the calling thread. The caller closes it.
func Open() (*Conn, error) {
	c, err := netlink.Open(netlink.Route)
	if err != nil {
		return nil, err
	}
	return &Conn{c}, nil
}

// Watch calls changed whenever links, addresses or routes of the calling thread's network namespace may have
// changed, until ctx ends. The first call comes when the subscription has begun: what the caller reads from
// then on cannot change unnoticed. Links are watched for the sake of routes: one that goes down takes its
// IPv4 routes with it, without a message about each.
func Watch(ctx context.Context, changed func()) error {
	groups := netlink.Group(unix.RTNLGRP_LINK) |
		netlink.Group(unix.RTNLGRP_IPV4_IFADDR) |
		netlink.Group(unix.RTNLGRP_IPV4_ROUTE) |
		netlink.Group(unix.RTNLGRP_IPV6_IFADDR) |
		netlink.Group(unix.RTNLGRP_IPV6_ROUTE)
	return netlink.Watch(ctx, netlink.Route, groups, func(uint16, []byte) { changed() })
}

// Attributes of RTM_GETNETCONF (linux/netconf.h), and the index that stands for all interfaces.
const (
	netconfIndex      = 1
	netconfForwarding = 2
	allInterfaces     = 0xffffffff
)

// Forwards reports whether the host forwards packets of IPv4 or IPv6 (net/ipv4/ip_forward,
// net/ipv6/conf/all/forwarding). It is the setting's value without a path to look up.
func (c *Conn) Forwards(is6 bool) (forwards bool, err error) {
	header := []byte{unix.AF_INET, 0, 0, 0}
	if is6 {
		header[0] = unix.AF_INET6
	}

	m := netlink.NewMessage("look up forwarding", unix.RTM_GETNETCONF, 0, header)
	err = c.Get(m.Uint32(netconfIndex, allInterfaces), func(_ uint16, body []byte) {
		if len(body) < len(header) {
			return
		}
		netlink.Attributes(body[len(header):], func(kind uint16, value []byte) {
			if kind == netconfForwarding && len(value) == 4 {
				forwards = native.Uint32(value) != 0
			}
		})
	})
	return forwards, err
}

// family returns the address family of an address, AF_INET or AF_INET6.
func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
