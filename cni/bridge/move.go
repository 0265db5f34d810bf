package bridge

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Move gives a bridge that is there the gateway addresses of other subnets, in place of those that it has. It
// is for the owner of the bridge, whose node has got another pod CIDR. Nothing is done while pods with
// addresses of the former subnets are on it: they would lose their gateway. moved tells what the bridge has
// now that it had not.
func Move(host *rtnl.Conn, c Config, gateways []Address) (moved []netip.Prefix, err error) {
	link, err := host.LinkByName(c.Name)
	if rtnl.Gone(err) {
		// the first pod's ADD makes it
		return nil, nil
	}

	if err == nil {
		err = isBridge(link)
	}
	if err != nil {
		return nil, err
	}

	have, err := host.Addresses(link.Index)
	if err != nil {
		return nil, err
	}

	for _, g := range gateways {
		want := netip.PrefixFrom(g.Gateway, g.Prefix.Bits())
		if slices.Contains(have, want) {
			continue
		}
		if err := readdress(host, link, formerly(have, gateways, want), want); err != nil {
			return moved, fmt.Errorf("gateway of bridge %s: %w", c.Name, err)
		}

		moved = append(moved, want)
	}

	return moved, nil
}

// formerly are the addresses of want's family that no gateway has.
func formerly(have []netip.Prefix, gateways []Address, want netip.Prefix) (all []netip.Prefix) {
	for _, other := range have {
		wanted := slices.ContainsFunc(gateways, func(g Address) bool { return g.Gateway == other.Addr() })
		if !wanted && other.Addr().Is4() == want.Addr().Is4() {
			all = append(all, other)
		}
	}
	return all
}

// readdress takes the former addresses away first: as long as the wanted one is not there, the next call goes
// on.
func readdress(host *rtnl.Conn, bridge rtnl.Link, former []netip.Prefix, want netip.Prefix) error {
	if len(former) > 0 {
		pods, err := ports(host, bridge.Index)
		if err != nil {
			return err
		}

		if pods > 0 {
			return fmt.Errorf("it has %v for %d pods that are still there, and gets %s when they are gone",
				former, pods, want)
		}
	}

	for _, other := range former {
		if err := host.Must(rtnl.DeleteAddress(bridge.Index, other)); err != nil && !rtnl.Gone(err) {
			return err
		}
	}

	if want.Addr().Is6() {
		if err := write("net/ipv6/conf/"+bridge.Name+"/disable_ipv6", "0"); err != nil {
			return err
		}
	}

	err := host.Must(rtnl.NewAddress(bridge.Index, want, rtnl.NoDAD))
	if rtnl.Exists(err) {
		// an ADD was quicker
		return nil
	}

	return err
}

// ports counts the pods on a bridge; those cut off by DEL are no ports any more.
func ports(host *rtnl.Conn, bridge int) (count int, err error) {
	links, err := host.Links()
	for _, l := range links {
		if l.Master == bridge {
			count++
		}
	}
	return count, err
}
