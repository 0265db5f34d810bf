package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// routeGroups are the multicast groups whose messages may mean that a route is not any more as it was made: a
// link that goes down takes its IPv4 routes with it without a message about each.
const routeGroups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)

// tableGroup is that of all changes of nftables (NFNLGRP_NFTABLES).
const tableGroup = 1 << (unix.NFNLGRP_NFTABLES - 1)

// Watch calls changed whenever links, addresses or routes of the calling thread's namespace may have changed,
// until ctx ends. It says that something changed, not what; a burst that overran the socket's buffer is one
// change too. The first call comes when Watch has begun to listen: what the caller sees from then on cannot
// change unnoticed.
func Watch(ctx context.Context, changed func()) error {
	return watch(ctx, unix.NETLINK_ROUTE, routeGroups, func([]byte) { changed() })
}

// WatchNetfilter calls visit with every message about a change of nftables, as Watch does; with none, kind 0,
// when there may have been one.
func WatchNetfilter(ctx context.Context, visit func(kind uint16, body []byte)) error {
	return watch(ctx, unix.NETLINK_NETFILTER, tableGroup, func(datagram []byte) {
		err := split(datagram, func(h unix.NlMsghdr, body []byte) error {
			visit(h.Type, body)
			return nil
		})
		if err != nil || len(datagram) == 0 {
			visit(0, nil)
		}
	})
}

// watch calls visit with each datagram of some multicast groups; with none at the beginning, and when some
// were lost.
func watch(ctx context.Context, protocol int, groups uint32, visit func(datagram []byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, protocol)
	if err != nil {
		return fmt.Errorf("open netlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		return errors.Join(fmt.Errorf("subscribe to netlink messages: %w", err), unix.Close(fd))
	}

	// As a file of the runtime's poller, the socket can be closed under a waiting read.
	socket := os.NewFile(uintptr(fd), "netlink")
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()

	buffer := make([]byte, 16<<10)
	visit(nil)
	for {
		n, err := socket.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, unix.ENOBUFS):
			n = 0
		case err != nil:
			return errors.Join(fmt.Errorf("read netlink messages: %w", err), socket.Close())
		}

		visit(buffer[:n])
	}
}
