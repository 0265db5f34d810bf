// Package conntracktest makes connections that the kernel tracks, and counts them, for tests.
package conntracktest

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/netlink"
)

// Send sends a datagram to each of some ports of the host that it is called on, by 127.0.0.1.
func Send(ports ...uint16) error {
	for _, port := range ports {
		c, err := net.Dial("udp4", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return err
		}

		_, err = c.Write([]byte("x"))
		if err := errors.Join(err, c.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Expect returns an error unless a number of tracked connections, for each of some ports, has begun with a
// packet to it.
func Expect(want map[uint16]int) error {
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	have := map[uint16]int{}
	err = conntrack.List(conn, unix.NFPROTO_IPV4, func(c conntrack.Connection) { have[c.Port]++ })
	for port, n := range want {
		if have[port] != n {
			err = errors.Join(err, fmt.Errorf("%d connections to port %d, want %d", have[port], port, n))
		}
	}
	return err
}
