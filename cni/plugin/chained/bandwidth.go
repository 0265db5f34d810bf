package chained

import (
	"context"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/limit"
	"github.com/trivet-node/trivet/cni/conf/meta"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/shaping"
	"github.com/trivet-node/trivet/internal/undo"
)

// Bandwidth is upstream's plugin of that name: it bounds what a container receives and sends.
type Bandwidth struct{}

// Add sets the limits, if there are any. The ifb for what the container sends is one more interface of the
// result.
func (Bandwidth) Add(c *call.Call) (err error) {
	b, err := meta.ReadBandwidth(c.Stdin)
	if err != nil {
		return err
	}
	if err := c.RequirePrevious(); err != nil {
		return err
	}
	if b.AreZero() {
		return c.Print(c.Previous)
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	veth, err := hostEnd(c, host)
	if err != nil {
		return err
	}

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)
	device, err := shaped(c, b).Ensure(host, veth, &back)
	if err != nil {
		return err
	}
	if device.Name != "" {
		c.Previous.Interfaces = append(c.Previous.Interfaces,
			&types100.Interface{Name: device.Name, Mac: device.MAC.String()})
	}

	return c.Print(c.Previous)
}

func shaped(c *call.Call, l limit.Limits) shaping.Pod {
	return shaping.Pod{
		Network: c.Name,
		Owner:   c.Owner,
		Ingress: l.Ingress,
		Egress:  l.Egress,
	}
}

// hostEnd returns the host's end of the container's veth, which prevResult has to name.
func hostEnd(c *call.Call, host *rtnl.Conn) (rtnl.Link, error) {
	if len(c.Previous.Interfaces) == 0 {
		return rtnl.Link{}, fmt.Errorf("%w: prevResult has no interfaces", conf.ErrInvalid)
	}

	peer := 0
	err := inPod(c, func(_ *rtnl.Conn, link rtnl.Link) error {
		if link.Kind != rtnl.KindVeth || link.Peer == 0 {
			return fmt.Errorf("interface %s is not a veth, whose other end is on the host", link.Name)
		}
		peer = link.Peer
		return nil
	})
	if err != nil {
		return rtnl.Link{}, err
	}

	link, err := host.LinkByIndex(peer)
	if err != nil {
		return link, err
	}

	for _, i := range c.Previous.Interfaces {
		if i.Sandbox == "" && i.Name == link.Name {
			return link, nil
		}
	}

	return link, fmt.Errorf("%w: prevResult does not have the host's end %s", conf.ErrInvalid, link.Name)
}

// Check returns an error that names the first limit which is not as Add set it.
func (Bandwidth) Check(c *call.Call) error {
	b, err := meta.ReadBandwidth(c.Stdin)
	if err != nil {
		return err
	}
	if err := c.RequirePrevious(); err != nil {
		return err
	}
	if b.AreZero() {
		return nil
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	veth, err := hostEnd(c, host)
	if err != nil {
		return err
	}

	return shaped(c, b).Check(host, veth)
}

// Del removes the ifb; the rest goes with the veth.
func (Bandwidth) Del(c *call.Call) error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	return shaping.Remove(host, c.Name, c.Owner)
}

// GC removes the ifbs of attachments that the runtime does not have.
func (Bandwidth) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	return shaping.Keep(host, t.Network, t.Valid.HasLabel)
}

// Status returns an error when the configuration makes no sense, or the kernel cannot limit.
func (Bandwidth) Status(c *call.Call) error {
	b, err := meta.ReadBandwidth(c.Stdin)
	if err != nil {
		return err
	}

	// The runtime says what it asks for in ADD alone: it may be either direction.
	if b.AreZero() {
		const rate = 8_000_000
		b.Ingress = shaping.Limit{Rate: rate, Burst: rate}
		b.Egress = b.Ingress
	}

	return call.Rehearse(func() error {
		host, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = host.Close() }()

		const loopback = 1
		link, err := host.LinkByIndex(loopback)
		if err != nil {
			return err
		}

		// It goes with the namespace.
		_, err = shaped(c, b).Ensure(host, link, new(undo.Stack))
		return err
	})
}
