// Package interfaces has the main plugins, one file each: they make a container's interface.
package interfaces

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/hostport"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/isolation"
	"github.com/trivet-node/trivet/cni/macspoof"
	"github.com/trivet-node/trivet/cni/masquerade"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/shaping"
	"github.com/trivet-node/trivet/internal/undo"
)

// Bridge connects containers to a bridge of the host: it is upstream's plugin of that name, and with
// HostPorts it is trivet-cni.
type Bridge struct {
	// HostPorts publishes host ports too, instead of leaving them to portmap later in the chain.
	HostPorts bool
}

func (b Bridge) read(c *call.Call) (*conf.Network, error) {
	return conf.ReadNetwork(c.Stdin, conf.Options{Args: c.Args, HostPorts: b.HostPorts})
}

// Add makes address, interface, rules and host ports, in this order. When a step fails, those before it are
// undone.
func (b Bridge) Add(c *call.Call) (err error) {
	n, err := b.read(c)
	if err != nil {
		return err
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := b.setMTU(host, n); err != nil {
		return err
	}

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)

	got, err := reserve(c, addresses.For(n.IPAMType, n.IPAM), &back)
	if err != nil {
		return err
	}

	attachment, err := newAttachment(c, n, got)
	if err != nil {
		return err
	}

	held, err := holdPod(c, n, podAddresses(attachment), &back)
	if err != nil {
		return err
	}

	ends, err := attach(c, host, n.Bridge, attachment, &back)
	if err != nil {
		return err
	}

	if err := guard(c, n, host, ends, attachment, &back); err != nil {
		return err
	}
	if err := publish(c, n, podAddresses(attachment), &back); err != nil {
		return err
	}

	result := describe(c, ends, attachment)
	result.DNS = dnsOf(n.DNS, got.DNS)
	if err := limit(c, n, host, ends.Host.Name, result, &back); err != nil {
		return err
	}
	if err := appendGateway(host, n, result); err != nil {
		return err
	}
	if err := held.await(); err != nil {
		return err
	}

	return c.Print(result)
}

// attach makes the interface.
func attach(
	c *call.Call, host *rtnl.Conn, cfg bridge.Config, a bridge.Attachment, back *undo.Stack,
) (bridge.Ends, error) {
	ended := c.Steps.Begin("attach interface")
	ends, err := bridge.Attach(host, cfg, a)
	ended()

	// After a failure, an interface of this name is not one that this call made.
	if err != nil {
		return ends, err
	}

	back.Push("remove interface", func(context.Context) error {
		_, err := bridge.Detach(host, cfg.Network, c.Owner, false)
		return err
	})
	return ends, nil
}

// appendGateway appends the host's own port in the VLAN of the pods to a result, if there is one.
func appendGateway(host *rtnl.Conn, n *conf.Network, r *types100.Result) error {
	name := n.Bridge.GatewayLink()
	if !n.Bridge.IsGateway || name == n.Bridge.Name {
		return nil
	}

	gateway, err := host.LinkByName(name)
	if err == nil {
		r.Interfaces = append(r.Interfaces, &types100.Interface{Name: name, Mac: gateway.MAC.String()})
	}

	return err
}

// publish writes the network's rules and the container's host ports, where there are any.
func publish(c *call.Call, n *conf.Network, pod []netip.Addr, back *undo.Stack) error {
	if err := isolation.Ensure(n.NAT.Bridge, n.Ingress); err != nil {
		return err
	}

	ports := hostport.Pair(n.Runtime.Ports, pod)
	if !n.NAT.Masquerade && len(ports) == 0 {
		return nil
	}

	if c.IsPod() {
		if err := hostport.Refuse(ports); err != nil {
			return err
		}
	}

	network := hostport.Network{NAT: n.NAT}
	if len(ports) > 0 {
		pool, err := n.Pool.Create()
		if err != nil {
			return err
		}

		network.Pool = pool
		back.Push("withdraw host ports", func(context.Context) error {
			table, err := network.Withdraw(c.Owner, nil)
			if err != nil {
				return err
			}
			return table.Close()
		})
	}

	defer c.Steps.Begin("write nftables rules")()
	return network.Publish(c.Owner, ports)
}

// Check returns an error that names the first thing of an attachment that is not as Add made it.
func (b Bridge) Check(c *call.Call) error {
	n, err := b.read(c)
	if err != nil {
		return err
	}
	if c.Previous == nil {
		return fmt.Errorf("%w: prevResult is missing", conf.ErrInvalid)
	}

	attachment, err := previousAttachment(c, n)
	if err != nil {
		return err
	}

	// The reservation first: without it, the addresses may be another container's by now.
	if source := addresses.For(n.IPAMType, n.IPAM); source != nil {
		if err := source.Check(c); err != nil {
			return err
		}
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := bridge.Check(host, n.Bridge, attachment); err != nil {
		return err
	}

	return b.checkRules(c, n, host, attachment)
}

// Del works from what can be computed or is on the disk: neither the namespace nor prevResult has to be
// there.
func (b Bridge) Del(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil {
		return err
	}

	// A pool that cannot be read does not keep the rest, which another IPAM plugin may be about.
	pool, opened := t.Pool.Open()

	var held []netip.Addr
	if pool != nil {
		if held, err = pool.Find(c.Owner); err != nil {
			return err
		}
	}

	// Either type has these. Without the interface they guard nothing, so that a failure keeps nothing else.
	guard := macspoof.Remove(c.Owner)
	return errors.Join(guard, opened, b.end(c, t, pool, held))
}

// end deletes all of an attachment that others can reach: host ports first, and the reservation last.
func (b Bridge) end(c *call.Call, t *conf.Teardown, pool *ipam.Pool, held []netip.Addr) error {
	if b.HostPorts {
		table, err := hostPorts(t, pool).Withdraw(c.Owner, held)
		if err != nil {
			return err
		}

		// Closing it waits for the kernel, which works while the rest goes on. To close another socket of
		// nftables is to wait as well, so that they come before.
		defer func() { _ = table.Close() }()
	} else if err := masquerade.Remove(t.Network, c.Owner); err != nil {
		return err
	}

	// The address stays reserved, and its rules stay, while the interface may be there.
	if err := detach(c, t); err != nil {
		return err
	}
	if err := forget(c, t, pool); err != nil {
		return err
	}

	return release(c, t, pool)
}

// detach removes the interface that this plugin made, or else the one that upstream's bridge made under the
// same name.
func detach(c *call.Call, t *conf.Teardown) error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	// What limits leave beside the veth.
	if err := shaping.Remove(host, t.Network, c.Owner); err != nil {
		return err
	}

	there, err := bridge.Detach(host, t.Network, c.Owner, t.LazyUnlink)
	if err != nil || there || !c.HasNetns() {
		return err
	}

	return bridge.DetachForeign(host, t.Bridge, c.Netns, c.Owner.IfName)
}

// GC deletes what belongs to attachments that the runtime does not have. It continues after errors, but
// addresses come last, when no interface uses them any more.
func (b Bridge) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}

	pool, opened := t.Pool.Open()
	ports := errors.Join(opened, hostPorts(t, pool).Keep(t.Valid))

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := bridge.Keep(host, t.Network, t.Valid.HasLabel); err != nil {
		return errors.Join(ports, err)
	}

	limits := shaping.Keep(host, t.Network, t.Valid.HasLabel)
	rules := errors.Join(keepOwnRules(host, t), keepUpstreams(host, t))
	return errors.Join(ports, limits, rules, keepPods(t, pool), keep(c, t, pool))
}

// hostPorts returns the host ports of a network for DEL and GC, which only need the name of the table.
func hostPorts(t *conf.Teardown, pool *ipam.Pool) hostport.Network {
	return hostport.Network{NAT: hostnat.Config{Network: t.Network}, Pool: pool}
}

// Status returns an error when the next Add would fail.
func (b Bridge) Status(c *call.Call) error {
	n, err := b.read(c)
	if err != nil {
		return err
	}

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := bridge.Usable(host, n.Bridge, gatewaySets(n)); err != nil {
		return err
	}
	if err := b.rehearse(c, n); err != nil {
		return err
	}

	if source := addresses.For(n.IPAMType, n.IPAM); source != nil {
		return source.Status(c)
	}

	return nil
}

// gatewaySets returns the gateways that the bridge gets for pods of the network: for each range set, one of
// these.
func gatewaySets(n *conf.Network) (sets [][]bridge.Address) {
	if n.IPAM == nil {
		return nil
	}
	for _, set := range n.IPAM.Sets {
		var gateways []bridge.Address
		for _, r := range set {
			gateways = append(gateways, bridge.Address{Prefix: r.Subnet, Gateway: r.Gateway})
		}
		sets = append(sets, gateways)
	}
	return sets
}
