package interfaces

import (
	"errors"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Loopback is upstream's plugin of that name: it brings lo up. It reads no configuration.
type Loopback struct{}

// loopbackIndex is the index of lo in every network namespace.
const loopbackIndex = 1

// Add brings lo up.
func (Loopback) Add(c *call.Call) error {
	own := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/8")}
	err := inPod(c, func(pod *rtnl.Conn) error {
		if sysctl.Get("net/ipv6/conf/lo/disable_ipv6") == "0" {
			own = append(own, netip.MustParsePrefix("::1/128"))
		}
		return pod.Must(rtnl.SetUp(loopbackIndex))
	})
	if err != nil {
		return err
	}
	if c.Previous != nil {
		return c.Print(c.Previous)
	}

	result := call.NewResult()
	result.Interfaces = []*types100.Interface{{
		Name:    "lo",
		Mac:     "00:00:00:00:00:00",
		Sandbox: c.Netns,
	}}

	for _, p := range own {
		result.IPs = append(result.IPs, &types100.IPConfig{
			Interface: new(0),
			Address:   prefix.IPNet(p),
		})
	}

	return c.Print(result)
}

// Check returns an error unless lo is up.
func (Loopback) Check(c *call.Call) error {
	return inPod(c, func(pod *rtnl.Conn) error {
		lo, err := pod.LinkByIndex(loopbackIndex)
		if err == nil && !lo.Up {
			err = errors.New("interface lo is down")
		}
		return err
	})
}

// Del takes lo down where the namespace is still there.
func (Loopback) Del(c *call.Call) error {
	if !c.HasNetns() {
		return nil
	}
	return inPod(c, func(pod *rtnl.Conn) error { return pod.Must(rtnl.SetDown(loopbackIndex)) })
}

// GC does nothing: there is nothing outside a container's namespace.
func (Loopback) GC(*call.Call) error { return nil }

// Status is always success.
func (Loopback) Status(*call.Call) error { return nil }

// inPod calls f with a connection in the network namespace of the container.
func inPod(c *call.Call, f func(pod *rtnl.Conn) error) error {
	return namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()
		return f(pod)
	}, c.Netns)
}
