package plugin

import (
	"context"
	"errors"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/undo"
)

// The roles that make an interface: trivet-cni, and bridge, which leaves host ports to portmap in the chain.

func withNAT(c hostnat.Config, f func(*hostnat.Table) error) error {
	t, err := hostnat.Open(c)
	if err != nil {
		return err
	}
	return errors.Join(f(t), t.Close())
}

// addBridge: address, link, rules, host ports. A failed step takes back those before it.
func addBridge(c *call) (err error) {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	var back undo.Stack
	ctx := context.Background()
	defer back.Unwind(ctx, &err)

	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, DNS: c.DNS}
	leases, err := c.allocate(&back)
	if err != nil {
		return err
	}

	attachment, err := c.attachment(leases)
	if err != nil {
		return err
	}

	ends, err := bridge.Attach(host, c.BridgeConfig(), attachment)

	// what is there now, if anything, is not this call's
	if err != nil {
		return err
	}

	back.Push("remove interface", func(context.Context) error {
		_, err := bridge.Detach(host, c.Name, c.owner(), false)
		return err
	})

	if err := c.nat(&back, attachment.Addresses); err != nil {
		return err
	}
	if err := c.describe(result, ends, attachment); err != nil {
		return err
	}

	return types.PrintResult(result, c.CNIVersion)
}

func (c *call) allocate(back *undo.Stack) ([]ipam.Lease, error) {
	if c.IPAM == nil {
		return nil, nil
	}

	pool, err := ipam.Open(c.IPAM.DataDir, c.Name, c.IPAM.BootScoped)
	if err != nil {
		return nil, err
	}

	c.pool = pool
	leases, err := pool.Allocate(c.owner(), c.IPAM.Sets, c.IPAM.Requested)
	if err == nil {
		back.Push("release addresses", func(context.Context) error { return pool.Release(c.owner()) })
	}

	return leases, err
}

// delBridge works from what can be computed or is on disk: neither the namespace nor prevResult has to be
// there.
func delBridge(c *call) error {
	pool, err := ipam.OpenIfThere(c.IPAM.DataDir, c.Name, c.IPAM.BootScoped)
	if err != nil {
		return err
	}

	var held []netip.Addr
	if pool != nil {
		if held, err = pool.Find(c.owner()); err != nil {
			return err
		}
	}

	if c.doesPorts() {
		if err := forgetPorts(pool, c.owner()); err != nil {
			return err
		}

		err := withNAT(c.NATConfig(), func(t *hostnat.Table) error {
			return t.Remove(c.owner().Label(), held)
		})
		if err != nil {
			return err
		}
	}

	if err := c.detach(); err != nil {
		// the address stays taken while the link may be there
		return err
	}

	if pool == nil {
		return nil
	}

	return pool.Release(c.owner())
}

// detach removes the interface that this plugin made, or else the one that upstream's bridge made under the
// same name.
func (c *call) detach() error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	there, err := bridge.Detach(host, c.Name, c.owner(), c.LazyUnlink)
	if err != nil || there || c.args.Netns == "" {
		return err
	}

	if own, err := isOwnNamespace(c.args.Netns); own || err != nil {
		// ADD refuses the host's own namespace, and one that is gone has nothing left
		return nil
	}

	return bridge.DetachForeign(host, c.Bridge, c.args.Netns, c.args.IfName)
}

func checkBridge(c *call) error {
	if c.previous == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "check network "+c.Name, "prevResult is missing")
	}

	attachment, err := c.fromPrevious()
	if err != nil {
		return err
	}

	if c.IPAM != nil {
		if err := checkHostLocal(c); err != nil {
			return err
		}
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := bridge.Check(host, c.BridgeConfig(), attachment); err != nil {
		return err
	}

	return c.checkNAT(attachment.Addresses)
}
