package rtnl

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// routeGroups are the multicast groups whose messages may mean that a route is not any more as it was made: a link that goes down takes
// its IPv4 routes with it without a message about each.
const routeGroups = 1<<(unix.RTNLGRP_LINK-1) | 1<<(unix.RTNLGRP_IPV4_IFADDR-1) | 1<<(unix.RTNLGRP_IPV4_ROUTE-1) |
	1<<(unix.RTNLGRP_IPV6_IFADDR-1) | 1<<(unix.RTNLGRP_IPV6_ROUTE-1)

// Watch calls changed whenever links, addresses or routes of the calling thread's namespace may have changed, until ctx ends. It says
// that something changed, not what; a burst that overran the socket's buffer is one change too. The first call comes when Watch has begun
// to listen: what the caller sees from then on cannot change unnoticed.
func Watch(ctx context.Context, changed func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("open rtnetlink socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: routeGroups}); err != nil {
		return errors.Join(fmt.Errorf("subscribe to route changes: %w", err), unix.Close(fd))
	}
	// As a file of the runtime's poller, the socket can be closed under a waiting read.
	socket := os.NewFile(uintptr(fd), "rtnetlink")
	stop := context.AfterFunc(ctx, func() { _ = socket.Close() })
	defer stop()
	buffer := make([]byte, 16<<10)
	changed()
	for {
		_, err := socket.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !errors.Is(err, unix.ENOBUFS):
			return errors.Join(fmt.Errorf("read route changes: %w", err), socket.Close())
		}
		changed()
	}
}
