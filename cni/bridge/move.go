package bridge

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Move gives a bridge that exists the gateway addresses of other subnets, in place of those that it has. It
// is for the owner of the bridge, whose node has got another pod CIDR. It fails while pods with addresses of
// the former subnets are on the bridge: they would lose their gateway. moved are the addresses that the
// bridge has got.
func Move(host *rtnl.Conn, c Config, gateways []Address) (moved []netip.Prefix, err error) {
	link, err := host.LinkByName(c.Name)
	if netlink.IsNotExist(err) {
		// The ADD of the first pod makes it.
		return nil, nil
	}

	if err == nil {
		err = requireBridge(link)
	}
	if err != nil {
		return nil, err
	}

	have, err := host.Addresses(link.Index)
	if err != nil {
		return nil, err
	}

	for _, g := range gateways {
		want := g.gatewayPrefix()
		if slices.Contains(have, want) {
			continue
		}
		if err := readdress(host, link, former(have, gateways, want), want); err != nil {
			return moved, fmt.Errorf("gateway of bridge %s: %w", c.Name, err)
		}

		moved = append(moved, want)
	}

	return moved, nil
}

// former returns the addresses of want's family that are not gateways any more.
func former(have []netip.Prefix, gateways []Address, want netip.Prefix) (all []netip.Prefix) {
	for _, other := range have {
		isGateway := func(g Address) bool { return g.Gateway == other.Addr() }
		if prefix.SameFamily(other.Addr(), want.Addr()) && !slices.ContainsFunc(gateways, isGateway) {
			all = append(all, other)
		}
	}
	return all
}

// readdress removes the former addresses first: as long as the wanted one is not there, the next call
// continues.
func readdress(host *rtnl.Conn, bridge rtnl.Link, former []netip.Prefix, want netip.Prefix) error {
	if len(former) > 0 {
		links, err := host.Links()
		if err != nil {
			return err
		}

		if pods := countPorts(links, bridge.Index); pods > 0 {
			const format = "it has %v for %d pods that are still there, and gets %s when they are gone"
			return fmt.Errorf(format, former, pods, want)
		}
	}

	if err := removeAddresses(host, bridge, former); err != nil {
		return err
	}

	err := addAddress(host, bridge, want)
	if netlink.IsExist(err) {
		// An ADD was faster.
		return nil
	}

	return err
}

// countPorts counts the pods on a bridge; those that DEL has cut off are not ports any more.
func countPorts(links []rtnl.Link, bridge int) (count int) {
	for _, l := range links {
		if l.Master == bridge {
			count++
		}
	}
	return count
}
