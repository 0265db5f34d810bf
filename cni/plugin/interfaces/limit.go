package interfaces

import (
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/shaping"
	"github.com/trivet-node/trivet/internal/undo"
)

// limited returns an attachment as package shaping knows it.
func limited(c *call.Call, n *conf.Network) shaping.Pod {
	return shaping.Pod{
		Network: c.Name,
		Owner:   c.Owner,
		Ingress: n.Runtime.Limits.Ingress,
		Egress:  n.Runtime.Limits.Egress,
	}
}

// limit bounds the traffic of the attachment, if the runtime asks for it, and names the interface that it
// makes for that in the result. What is set on the veth goes with it.
func limit(
	c *call.Call, n *conf.Network, host *rtnl.Conn, name string, r *types100.Result, back *undo.Stack,
) error {
	if n.Runtime.Limits.AreZero() {
		return nil
	}

	veth, err := host.LinkByName(name)
	if err != nil {
		return err
	}

	device, err := limited(c, n).Ensure(host, veth, back)
	if err == nil && device.Name != "" {
		r.Interfaces = append(r.Interfaces, &types100.Interface{Name: device.Name, Mac: device.MAC.String()})
	}

	return err
}

// checkLimits returns an error that names the first limit which is not as Add set it.
func checkLimits(c *call.Call, n *conf.Network) error {
	if n.Runtime.Limits.AreZero() {
		return nil
	}
	return withHostEnd(c, limited(c, n).Check)
}

// withHostEnd calls f with the host's end of the pod's veth.
func withHostEnd(c *call.Call, f func(host *rtnl.Conn, veth rtnl.Link) error) error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	veth, err := host.LinkByName(bridge.HostName(c.Name, c.Owner))
	if err != nil {
		return err
	}
	return f(host, veth)
}
