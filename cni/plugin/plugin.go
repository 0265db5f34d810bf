// Package plugin is the CNI protocol round the parts: it turns a call (environment and JSON) into steps on addresses, links and nftables,
// and their outcome into a result or a CNI error. https://www.cni.dev/docs/spec/ version 1.1.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/undo"
)

// Versions that the plugin speaks.
var Versions = version.All

// Functions are the operations by the type of the configuration, whatever name the program was called by.
func Functions() skel.CNIFuncs {
	return skel.CNIFuncs{Add: add, Del: del, Check: check, GC: collect, Status: status}
}

// operations of one plugin type.
type operations struct {
	add, check  func(*call) error
	del         func(*call) error
	gc, status_ func(*conf.Network) error
}

var byType = map[string]operations{
	"trivet-cni": {addBridge, checkBridge, delBridge, gcBridge, statusBridge},
	"bridge":     {addBridge, checkBridge, delBridge, gcBridge, statusBridge},
	"host-local": {addHostLocal, checkHostLocal, delHostLocal, gcHostLocal, statusHostLocal},
	"loopback":   {addLoopback, checkLoopback, nothing, keepAll, keepAll},
}

func nothing(*call) error         { return nil }
func keepAll(*conf.Network) error { return nil }

// call is one ADD, CHECK or DEL.
type call struct {
	*conf.Network
	args     *skel.CmdArgs
	previous *types100.Result // nil when the runtime sent none
}

func (c *call) owner() ipam.Owner {
	return ipam.Owner{ContainerID: c.args.ContainerID, IfName: c.args.IfName}
}

func parse(args *skel.CmdArgs) (*call, operations, error) {
	n, err := conf.Parse(args.StdinData, args.Args)
	if err != nil {
		return nil, operations{}, err
	}
	ops, ok := byType[n.Type]
	if !ok {
		return nil, operations{}, types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("network %q", n.Name), fmt.Sprintf("this program is no plugin of type %q", n.Type))
	}
	c := &call{Network: n, args: args}
	if n.HasPrev {
		pc := &types.PluginConf{CNIVersion: n.CNIVersion, RawPrevResult: n.Previous}
		if err := version.ParsePrevResult(pc); err != nil {
			return nil, ops, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
		}
		if c.previous, err = types100.NewResultFromResult(pc.PrevResult); err != nil {
			return nil, ops, types.NewError(types.ErrDecodingFailure, "prevResult", err.Error())
		}
	}
	return c, ops, nil
}

func run(args *skel.CmdArgs, verb string, pick func(operations) func(*call) error) error {
	c, ops, err := parse(args)
	if err != nil {
		return err
	}
	return explain(verb, c.Network, pick(ops)(c))
}

func runNetwork(args *skel.CmdArgs, verb string, pick func(operations) func(*conf.Network) error) error {
	c, ops, err := parse(args)
	if err != nil {
		return err
	}
	return explain(verb, c.Network, pick(ops)(c.Network))
}

// explain gives an error its CNI code and names network and operation.
func explain(verb string, n *conf.Network, err error) error {
	var coded *types.Error
	if err == nil || errors.As(err, &coded) {
		return err
	}
	code := types.ErrInternal
	if errors.Is(err, ipam.ErrExhausted) {
		code = types.ErrTryAgainLater
	}
	return types.NewError(code, fmt.Sprintf("%s network %s (%s)", verb, n.Name, n.Type), err.Error())
}

func add(args *skel.CmdArgs) error {
	return run(args, "add container "+args.ContainerID+" to", func(o operations) func(*call) error { return o.add })
}

func check(args *skel.CmdArgs) error {
	return run(args, "check container "+args.ContainerID+" in", func(o operations) func(*call) error { return o.check })
}

func del(args *skel.CmdArgs) error {
	return run(args, "delete container "+args.ContainerID+" from", func(o operations) func(*call) error { return o.del })
}

func collect(args *skel.CmdArgs) error {
	return runNetwork(args, "collect garbage of", func(o operations) func(*conf.Network) error { return o.gc })
}

func status(args *skel.CmdArgs) error {
	return runNetwork(args, "status of", func(o operations) func(*conf.Network) error { return o.status_ })
}

// bridgeConfig and natConfig are the parts' views of a network.
func bridgeConfig(n *conf.Network) bridge.Config {
	return bridge.Config{
		Network: n.Name, Name: n.Bridge, MTU: n.MTU, IsGateway: n.IsGateway, Force: n.ForceAddress, Promisc: n.Promiscuous,
		Port: rtnl.Port{Hairpin: n.Hairpin, Isolated: n.PortIsolation}, HostRouted: n.HostRouted, DAD: n.DAD,
	}
}

func natConfig(n *conf.Network) hostnat.Config {
	c := hostnat.Config{Network: n.Name, Bridge: n.Bridge, Masquerade: n.IPMasq, NoMasq: n.NoMasq, SNAT: n.SNAT, HostRouted: n.HostRouted, Ports: n.Type == "trivet-cni"}
	if n.IPAM != nil {
		c.Subnets = n.IPAM.Subnets
	}
	return c
}

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
	ends, err := bridge.Attach(host, bridgeConfig(c.Network), attachment)
	if err != nil { // what is there now, if anything, is not this call's
		return err
	}
	back.Push("remove interface", func(context.Context) error {
		_, err := bridge.Detach(host, c.Name, c.args.ContainerID, c.args.IfName, false)
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
	leases, err := pool.Allocate(c.owner(), c.IPAM.Sets, c.IPAM.Requested)
	if err == nil {
		back.Push("release addresses", func(context.Context) error { return pool.Release(c.owner()) })
	}
	return leases, err
}

// nat makes the rules of the network fit and publishes the pod's host ports.
func (c *call) nat(back *undo.Stack, addresses []bridge.Address) error {
	ports := c.natPorts(addresses)
	if !c.IPMasq && len(ports) == 0 {
		return nil
	}
	return withNAT(natConfig(c.Network), func(t *hostnat.Table) error {
		if err := t.Ensure(); err != nil || len(ports) == 0 {
			return err
		}
		if c.SNAT { // the rules are there now, the one that drops what pods send to 127.0.0.1 among them
			if err := bridge.RouteLoopback(c.Bridge); err != nil {
				return err
			}
		}
		back.Push("withdraw host ports", func(context.Context) error {
			return withNAT(natConfig(c.Network), func(t *hostnat.Table) error { return t.Remove(c.owner().String(), nil) })
		})
		return t.AddPorts(c.owner().String(), ports)
	})
}

// natPorts pairs the wanted host ports with the pod's addresses: one of each family, unless a host address names the family.
func (c *call) natPorts(addresses []bridge.Address) []hostnat.Port {
	var all []hostnat.Port
	if c.Type == "bridge" { // upstream's chain has portmap for it
		return nil
	}
	for _, p := range c.Ports {
		var done [2]bool
		for _, a := range addresses {
			ip := a.Prefix.Addr()
			fam := 0
			if ip.Is6() {
				fam = 1
			}
			if done[fam] || p.HostIP.IsValid() && p.HostIP.Is4() != ip.Is4() {
				continue
			}
			done[fam] = true
			all = append(all, hostnat.Port{HostIP: p.HostIP, HostPort: p.HostPort, Protocol: p.Protocol, Pod: netip.AddrPortFrom(ip, p.ContainerPort)})
		}
	}
	return all
}

// delBridge works from what can be computed or is on disk: neither the namespace nor prevResult has to be there.
func delBridge(c *call) error {
	var held []netip.Addr
	var pool *ipam.Pool
	var err error
	if c.IPAM != nil {
		if pool, err = ipam.Open(c.IPAM.DataDir, c.Name, c.IPAM.BootScoped); err != nil {
			return err
		}
		if held, err = pool.Find(c.owner()); err != nil {
			return err
		}
	}
	if c.Type != "bridge" {
		err := withNAT(natConfig(c.Network), func(t *hostnat.Table) error { return t.Remove(c.owner().String(), held) })
		if err != nil {
			return err
		}
	}
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()
	there, err := bridge.Detach(host, c.Name, c.args.ContainerID, c.args.IfName, c.LazyUnlink)
	if err == nil && !there && c.args.Netns != "" {
		err = bridge.DetachForeign(c.args.Netns, c.args.IfName)
	}
	if err != nil || pool == nil {
		return err // the address stays taken while the link may be there
	}
	return pool.Release(c.owner())
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
	if err := bridge.Check(host, bridgeConfig(c.Network), attachment); err != nil {
		return err
	}
	ports := c.natPorts(attachment.Addresses)
	if len(ports) == 0 {
		return nil
	}
	return withNAT(natConfig(c.Network), func(t *hostnat.Table) error { return t.HasPorts(ports) })
}
