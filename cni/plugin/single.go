package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/undo"
)

// The plugins of upstream's chain that do one thing: host-local, loopback.

// addHostLocal serves other plugins that delegate to an IPAM plugin (CNI specification, section 4):
// addresses, no interface.
func addHostLocal(c *call) (err error) {
	if c.IPAM == nil {
		return c.withoutIPAM()
	}

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)

	leases, err := c.allocate(&back)
	if err != nil {
		return err
	}

	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	for _, l := range leases {
		result.IPs = append(
			result.IPs,
			&types100.IPConfig{
				Address: fromPrefix(netip.PrefixFrom(l.Address, l.Range.Subnet.Bits())),
				Gateway: l.Range.Gateway.AsSlice(),
			},
		)
	}

	for i := range c.IPAM.Routes {
		result.Routes = append(result.Routes, &c.IPAM.Routes[i])
	}

	if err := c.resolver(result); err != nil {
		return err
	}

	return types.PrintResult(result, c.CNIVersion)
}

func (c *call) withoutIPAM() error {
	return types.NewError(types.ErrInvalidNetworkConfig, "network "+c.Name, "ipam is missing")
}

// checkHostLocal: prevResult's addresses are the ones reserved.
func checkHostLocal(c *call) error {
	if c.IPAM == nil {
		return c.withoutIPAM()
	}

	pool, err := ipam.Open(c.IPAM.DataDir, c.Name, c.IPAM.BootScoped)
	if err != nil {
		return err
	}

	held, err := pool.Find(c.owner())
	if err != nil {
		return err
	}
	if len(held) == 0 {
		return fmt.Errorf("no address is reserved for %s", c.owner())
	}
	if c.previous == nil {
		return nil
	}

	for _, ip := range c.previous.IPs {
		if a := toAddr(ip.Address.IP); c.isPods(ip.Interface) && !slices.Contains(held, a) {
			return fmt.Errorf("address %s is not reserved for %s", a, c.owner())
		}
	}

	return nil
}

func delHostLocal(c *call) error {
	pool, err := ipam.OpenIfThere(c.IPAM.DataDir, c.Name, c.IPAM.BootScoped)
	if err != nil || pool == nil {
		return err
	}
	return pool.Release(c.owner())
}

// addLoopback brings lo up.
func addLoopback(c *call) error {
	err := namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()

		return pod.Must(rtnl.SetUp(1))
	}, c.args.Netns)
	if err != nil {
		return err
	}
	if c.previous != nil {
		return types.PrintResult(c.previous, c.CNIVersion)
	}

	return types.PrintResult(&types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: c.args.IfName, Mac: "00:00:00:00:00:00", Sandbox: c.args.Netns},
		},
		IPs: []*types100.IPConfig{
			{Interface: types100.Int(0), Address: fromPrefix(netip.MustParsePrefix("127.0.0.1/8"))},
		},
	}, c.CNIVersion)
}

func checkLoopback(c *call) error {
	return namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()

		lo, err := pod.LinkByName("lo")
		if err == nil && !lo.Up {
			err = errors.New("interface lo is down")
		}

		return err
	}, c.args.Netns)
}
