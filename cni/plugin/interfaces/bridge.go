// Package interfaces has the main plugins, one file each: they make a container's interface.
package interfaces

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/hostport"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/addresses"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/undo"
)

// Bridge connects containers to a bridge of the host: it is upstream's plugin of that name, and with
// HostPorts it is trivet-cni.
type Bridge struct {
	// HostPorts publishes host ports too, instead of leaving them to portmap later in the chain.
	HostPorts bool

	ipam addresses.HostLocal
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

	ctx := context.Background()
	var back undo.Stack
	defer back.Unwind(ctx, &err)

	var pool *ipam.Pool
	var leases []ipam.Lease
	if n.IPAM != nil {
		if pool, leases, err = b.ipam.Reserve(n.IPAM, c.Owner, &back); err != nil {
			return err
		}
	}

	attachment, err := newAttachment(c, n, leases)
	if err != nil {
		return err
	}

	// After a failure, an interface of this name is not one that this call made.
	ends, err := bridge.Attach(host, n.Bridge, attachment)
	if err != nil {
		return err
	}

	back.Push("remove interface", func(context.Context) error {
		_, err := bridge.Detach(host, n.Bridge.Network, c.Owner, false)
		return err
	})

	ports := hostport.Pair(n.Runtime.Ports, podAddresses(attachment))
	if n.NAT.Masquerade || len(ports) > 0 {
		network := hostport.Network{NAT: n.NAT, Pool: pool}
		if len(ports) > 0 {
			back.Push("withdraw host ports",
				func(context.Context) error { return network.Withdraw(c.Owner, nil) })
		}

		if err := network.Publish(c.Owner, ports); err != nil {
			return err
		}
	}

	result := describe(c, ends, attachment)
	if result.DNS, err = call.DNS(n.DNS, n.IPAM); err != nil {
		return err
	}

	return c.Print(result)
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

	if n.IPAM != nil {
		if err := b.ipam.Check(c); err != nil {
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

	ports := hostport.Pair(n.Runtime.Ports, podAddresses(attachment))
	if !n.NAT.Masquerade && len(ports) == 0 {
		return nil
	}

	return hostport.Network{NAT: n.NAT}.Check(ports)
}

// Del works from what can be computed or is on the disk: neither the namespace nor prevResult has to be
// there.
func (b Bridge) Del(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil {
		return err
	}

	pool, err := t.Pool.Open()
	if err != nil {
		return err
	}

	var held []netip.Addr
	if pool != nil {
		if held, err = pool.Find(c.Owner); err != nil {
			return err
		}
	}

	if b.HostPorts {
		if err := hostPorts(t, pool).Withdraw(c.Owner, held); err != nil {
			return err
		}
	}

	// The address stays reserved while the interface may be there.
	if err := detach(c, t); err != nil || pool == nil {
		return err
	}

	return pool.Release(c.Owner)
}

// detach removes the interface that this plugin made, or else the one that upstream's bridge made under the
// same name.
func detach(c *call.Call, t *conf.Teardown) error {
	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	there, err := bridge.Detach(host, t.Network, c.Owner, t.LazyUnlink)
	if err != nil || there || c.Netns == "" {
		return err
	}

	// Add refuses the host's own namespace, and one that does not exist any more has no interface.
	if own, err := c.InOwnNamespace(); own || err != nil {
		return nil
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

	pool, err := t.Pool.Open()
	if err != nil {
		return err
	}

	ports := hostPorts(t, pool).Keep(t.Valid)

	host, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = host.Close() }()

	if err := bridge.Keep(host, t.Network, t.Valid.HasLabel); err != nil {
		return errors.Join(ports, err)
	}

	return errors.Join(ports, b.ipam.GC(c))
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

	if n.NAT.Masquerade || b.HostPorts {
		if err := (hostport.Network{NAT: n.NAT}).Usable(); err != nil {
			return err
		}
	}

	if n.IPAM == nil {
		return nil
	}

	return b.ipam.Status(c)
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

// newAttachment returns what the leases and the configuration say about the pod's interface.
func newAttachment(c *call.Call, n *conf.Network, leases []ipam.Lease) (bridge.Attachment, error) {
	a := bridge.Attachment{Owner: c.Owner, Netns: c.Netns, MAC: n.Runtime.MAC}
	for _, l := range leases {
		a.Addresses = append(a.Addresses, bridge.Address{Prefix: l.Prefix(), Gateway: l.Range.Gateway})
	}
	var err error
	a.Routes, err = routes(n, a.Addresses)
	return a, err
}

// previousAttachment returns what prevResult says about the pod's interface. Plugins later in the chain may
// have changed it, and say so there.
func previousAttachment(c *call.Call, n *conf.Network) (bridge.Attachment, error) {
	a := bridge.Attachment{
		Owner: c.Owner,
		Netns: c.Netns,
		MAC:   n.Runtime.MAC,
		MTU:   n.Bridge.MTU,
	}
	if i := c.PreviousInterface(); i != nil {
		if mac, err := net.ParseMAC(i.Mac); err == nil {
			a.MAC = mac
		}
		if i.Mtu != 0 {
			a.MTU = i.Mtu
		}
	}

	for _, ip := range c.PreviousIPs() {
		p, err := prefix.FromIPNet(ip.Address)
		if err != nil {
			return a, fmt.Errorf("%w: prevResult: %w", conf.ErrInvalid, err)
		}

		a.Addresses = append(a.Addresses, bridge.Address{Prefix: p, Gateway: prefix.Addr(ip.Gateway)})
	}

	var err error
	a.Routes, err = routes(n, a.Addresses)
	return a, err
}

// routes returns the pod's routes: those of the configuration, and default routes if it wants them and has
// none.
func routes(n *conf.Network, pod []bridge.Address) (all []rtnl.Route, err error) {
	if n.IPAM == nil {
		return nil, nil
	}

	configured := map[netip.Prefix]bool{}
	for _, r := range n.IPAM.Routes {
		route, err := call.ParseRoute(r)
		if err != nil {
			return nil, fmt.Errorf("%w: ipam: routes: %w", conf.ErrInvalid, err)
		}
		if !route.Gateway.IsValid() {
			route.Gateway = gatewayFor(route.Dst, pod)
		}

		configured[route.Dst] = true
		all = append(all, route)
	}

	if !n.DefaultGateway {
		return all, nil
	}

	for _, dst := range []netip.Prefix{prefix.Default4, prefix.Default6} {
		gateway := gatewayFor(dst, pod)
		if gateway.IsValid() && !configured[dst] {
			all = append(all, rtnl.Route{Dst: dst, Gateway: gateway})
		}
	}

	return all, nil
}

// gatewayFor returns the gateway of the pod's first address in the family of a destination, or the zero Addr.
func gatewayFor(dst netip.Prefix, pod []bridge.Address) netip.Addr {
	for _, a := range pod {
		if prefix.SameFamily(a.Prefix.Addr(), dst.Addr()) {
			return a.Gateway
		}
	}
	return netip.Addr{}
}

func podAddresses(a bridge.Attachment) (all []netip.Addr) {
	for _, address := range a.Addresses {
		all = append(all, address.Prefix.Addr())
	}
	return all
}

// podInterface is the index of the pod's interface in the result of describe.
const podInterface = 2

// describe returns the result of Add (CNI specification, section 5): bridge, host's end, pod's end, and what
// the pod's end has.
func describe(c *call.Call, ends bridge.Ends, a bridge.Attachment) *types100.Result {
	result := call.NewResult()
	for _, l := range []rtnl.Link{ends.Bridge, ends.Host, ends.Pod} {
		i := &types100.Interface{Name: l.Name, Mac: l.MAC.String(), Mtu: l.MTU}
		result.Interfaces = append(result.Interfaces, i)
	}

	result.Interfaces[podInterface].Sandbox = c.Netns

	for _, address := range a.Addresses {
		ip := &types100.IPConfig{
			Interface: types100.Int(podInterface),
			Address:   prefix.IPNet(address.Prefix),
		}
		if address.Gateway.IsValid() {
			ip.Gateway = address.Gateway.AsSlice()
		}

		result.IPs = append(result.IPs, ip)
	}

	for _, r := range a.Routes {
		result.Routes = append(result.Routes, call.FormatRoute(r))
	}

	return result
}
