// Package rtnltest gives tests the network namespace of a pretended host, with a connection to its kernel.
package rtnltest

import (
	"net"
	"testing"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/testenv"
)

// Host calls f in a network namespace of its own, whose loopback device is down. The test fails with what f
// returns.
func Host(tb testing.TB, f func(host *rtnl.Conn) error) {
	tb.Helper()
	err := namespace.Do(func() error {
		host, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = host.Close() }()

		return f(host)
	}, testenv.Netns(tb))
	if err != nil {
		tb.Error(err)
	}
}

// Link calls f as Host does, with an interface that stands for the host's end of a pod's.
func Link(tb testing.TB, f func(host *rtnl.Conn, link rtnl.Link) error) {
	tb.Helper()
	Host(tb, func(host *rtnl.Conn) error {
		const name = "br0"
		if err := host.Must(rtnl.NewBridge(name, net.HardwareAddr{2, 0, 0, 0, 0, 1}, 0)); err != nil {
			return err
		}

		link, err := host.LinkByName(name)
		if err != nil {
			return err
		}

		return f(host, link)
	})
}
