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

// family returns the address family of an address, AF_INET or AF_INET6.
func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
