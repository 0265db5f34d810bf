package interfaces

import (
	"context"
	"errors"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/masquerade"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/ptp"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/undo"
)

// PointToPoint is upstream's ptp: it connects a container to the host without a bridge.
type PointToPoint struct{}

func (PointToPoint) read(c *call.Call) (*conf.PointToPoint, error) {
	return conf.ReadPointToPoint(c.Stdin, c.Args)
}

// Add makes address, interface and rules, in this order. When a step fails, those before it are undone.
func (p PointToPoint) Add(c *call.Call) (err error) {
	n, err := p.read(c)
	if err != nil {
		return err
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)

	got, err := reserve(c, addresses.For(n.IPAMType, n.IPAM), &back)
	if err != nil {
		return err
	}

	attachment, err := p.attachment(c, got)
	if err != nil {
		return err
	}

	ends, err := ptp.Attach(host, ptp.Config{Network: c.Name, MTU: n.MTU}, attachment)
	if err != nil {
		return err
	}

	back.Push("remove interface", func(context.Context) error {
		_, err := bridge.Detach(host, c.Name, c.Owner, false)
		return err
	})

	if n.Masquerade != "" {
		back.Push("remove masquerading",
			func(context.Context) error { return masquerade.Remove(c.Name, c.Owner) })
		if err := masqueraded(c, attachment.Addresses).Ensure(n.Masquerade); err != nil {
			return err
		}
	}

	result := describePair(c, ends, attachment)
	result.DNS = dnsOf(n.DNS, got.DNS)
	return c.Print(result)
}

// attachment returns what IPAM says about the pod's interface. Without a gateway the pod has no way out.
func (PointToPoint) attachment(c *call.Call, got addresses.Allocation) (bridge.Attachment, error) {
	a := bridge.Attachment{Owner: c.Owner, Netns: c.Netns}
	if len(got.Addresses) == 0 {
		return a, errors.New("IPAM gives no address")
	}

	for _, address := range got.Addresses {
		if !address.Gateway.IsValid() {
			const format = "%w: IPAM names no gateway for address %s, which the host is to have"
			return a, fmt.Errorf(format, conf.ErrInvalid, address.Prefix)
		}
		a.Addresses = append(a.Addresses, bridge.Address(address))
	}

	var err error
	a.Routes, err = routes(false, got.Routes, a.Addresses)
	return a, err
}

// describePair returns the result of Add: host's end and pod's end.
func describePair(c *call.Call, ends bridge.Ends, a bridge.Attachment) *types100.Result {
	r := describe(c, ends, a)
	r.Interfaces = r.Interfaces[1:]
	for _, ip := range r.IPs {
		ip.Interface = new(podInterface - 1)
	}
	return r
}

// Check returns an error that names the first thing of an attachment that is not as Add made it.
func (p PointToPoint) Check(c *call.Call) error {
	n, err := p.read(c)
	if err != nil {
		return err
	}
	if c.Previous == nil {
		return fmt.Errorf("%w: prevResult is missing", conf.ErrInvalid)
	}
	if err := addresses.For(n.IPAMType, n.IPAM).Check(c); err != nil {
		return err
	}

	attachment, err := attachmentOf(c)
	if err != nil {
		return err
	}

	attachment.Routes, err = routes(false, c.PreviousRoutes(), attachment.Addresses)
	if err != nil {
		return err
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := ptp.Check(host, attachment); err != nil || n.Masquerade == "" {
		return err
	}

	return masqueraded(c, attachment.Addresses).Check()
}

// Del works from what can be computed or is on the disk: neither the namespace nor prevResult has to be
// there.
func (PointToPoint) Del(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil {
		return err
	}

	t.Bridge = ""
	if err := masquerade.Remove(t.Network, c.Owner); err != nil {
		return err
	}

	// The address stays reserved while the interface may be there.
	if err := detach(c, t); err != nil {
		return err
	}

	pool, err := t.Pool.Open()
	return errors.Join(err, release(c, t, pool))
}

// GC deletes what belongs to attachments that the runtime does not have, addresses last.
func (PointToPoint) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	rules := masquerade.Keep(t.Network, t.Valid.Owners())
	if err := bridge.Keep(host, t.Network, t.Valid.HasLabel); err != nil {
		return errors.Join(rules, err)
	}

	pool, err := t.Pool.Open()
	return errors.Join(rules, err, keepUpstreams(host, t), keep(c, t, pool))
}

// Status returns an error when the next Add would fail.
func (p PointToPoint) Status(c *call.Call) error {
	n, err := p.read(c)
	if err != nil {
		return err
	}
	if n.Masquerade != "" {
		err := call.Rehearse(func() error { return rehearseMasquerade(c, n.IPAM, n.Masquerade) })
		if err != nil {
			return err
		}
	}
	return addresses.For(n.IPAMType, n.IPAM).Status(c)
}
