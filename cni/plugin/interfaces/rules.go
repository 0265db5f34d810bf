package interfaces

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/firewall"
	"github.com/trivet-node/trivet/cni/hostport"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/isolation"
	"github.com/trivet-node/trivet/cni/macspoof"
	"github.com/trivet-node/trivet/cni/masquerade"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/portmap"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/shaping"
	"github.com/trivet-node/trivet/cni/sourceguard"
	"github.com/trivet-node/trivet/internal/undo"
)

// guard writes the rules that are a single pod's: which addresses it may send from, and masquerading where
// the configuration names its backend.
func guard(
	c *call.Call, n *conf.Network, host *rtnl.Conn, ends bridge.Ends, a bridge.Attachment, back *undo.Stack,
) error {
	if err := guardSource(c, n, host, ends, podAddresses(a)); err != nil {
		return err
	}
	if n.MACSpoofCheck {
		back.Push("remove MAC address rules", func(context.Context) error { return macspoof.Remove(c.Owner) })
		if err := macGuard(c, ends.Host.Name, ends.Pod.MAC).Ensure(); err != nil {
			return err
		}
	}

	if n.PerPod == "" {
		return nil
	}

	back.Push("remove masquerading",
		func(context.Context) error { return masquerade.Remove(c.Name, c.Owner) })
	return masqueraded(c, a.Addresses).Ensure(n.PerPod)
}

// guardSource drops what the pod sends with others' addresses. It goes with the veth, so that there is
// nothing to undo.
func guardSource(
	c *call.Call, n *conf.Network, host *rtnl.Conn, ends bridge.Ends, addresses []netip.Addr,
) error {
	if !n.SourceGuard {
		return nil
	}
	defer c.Steps.Begin("guard source addresses")()

	veth, err := host.LinkByName(ends.Host.Name)
	if err != nil {
		return err
	}
	err = sourceguard.Guard{MAC: ends.Pod.MAC, Addresses: addresses}.Ensure(host, veth.Index)
	if err != nil {
		return fmt.Errorf("sourceGuard: %w", err)
	}
	return nil
}

// checkSource returns an error unless the host drops what the pod sends with others' addresses.
func checkSource(c *call.Call, n *conf.Network, a bridge.Attachment) error {
	if !n.SourceGuard || a.MAC == nil {
		return nil
	}
	return withHostEnd(c, sourceguard.Guard{MAC: a.MAC, Addresses: podAddresses(a)}.Check)
}

func macGuard(c *call.Call, veth string, mac net.HardwareAddr) macspoof.Guard {
	return macspoof.Guard{Owner: c.Owner, Veth: veth, MAC: mac}
}

// masqueraded returns an attachment as package masquerade knows it.
func masqueraded(c *call.Call, all []bridge.Address) masquerade.Pod {
	p := masquerade.Pod{Network: c.Name, Owner: c.Owner}
	for _, a := range all {
		p.Addresses = append(p.Addresses, a.Prefix)
	}
	return p
}

// checkRules returns an error that names what is missing of the pod's rules. The masquerading of a pod that
// upstream's plugin has added is in its own table.
func (b Bridge) checkRules(c *call.Call, n *conf.Network, host *rtnl.Conn, a bridge.Attachment) error {
	if err := checkLimits(c, n); err != nil {
		return err
	}
	if err := checkSource(c, n, a); err != nil {
		return err
	}
	if err := isolation.Check(n.NAT.Bridge, n.Ingress); err != nil {
		return err
	}
	if n.MACSpoofCheck {
		ends, err := bridge.EndsOf(host, n.Bridge, a)
		if err != nil {
			return err
		}
		if err := macGuard(c, ends.Host.Name, ends.Pod.MAC).Check(); err != nil {
			return err
		}
	}

	perPod := masqueraded(c, a.Addresses)
	if n.PerPod != "" {
		return perPod.Check()
	}

	ports := hostport.Pair(n.Runtime.Ports, podAddresses(a))
	if !n.NAT.Masquerade && len(ports) == 0 {
		return nil
	}

	err := hostport.Network{NAT: n.NAT}.Check(ports)
	if err != nil && !b.HostPorts && perPod.Check() == nil {
		return nil
	}

	return err
}

// keepOwnRules removes the rules of single pods that the runtime does not have.
func keepOwnRules(host *rtnl.Conn, t *conf.Teardown) error {
	return errors.Join(macspoof.Keep(host), masquerade.Keep(t.Network, t.Valid.Owners()))
}

// keepUpstreams removes what upstream's portmap, firewall and bandwidth have made for attachments that the
// runtime does not have. It names a container or an address, and no network: that is in the reservation,
// which goes later, so that a GC that was killed is repeated in full.
func keepUpstreams(host *rtnl.Conn, t *conf.Teardown) error {
	all, err := t.Pool.Reservations()
	former := map[netip.Addr]string{}
	for _, r := range all {
		if t.Valid.Has(r.Owner) {
			continue
		}

		former[r.Address] = r.Owner.ContainerID

		// The name of an ifb is the container's, which may have another attachment.
		if !t.Valid.Has(ipam.Owner{ContainerID: r.Owner.ContainerID}) {
			err = errors.Join(err, shaping.Remove(host, t.Network, r.Owner))
		}
	}

	if len(former) == 0 {
		return err
	}
	forbidden := firewall.ForbidAddresses(slices.Collect(maps.Keys(former)))
	return errors.Join(err, portmap.WithdrawFrom(former), forbidden)
}
