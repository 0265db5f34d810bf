package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
)

// ensure makes the bridge match the configuration: it exists, is up and has the gateway addresses, and the
// host forwards.
func ensure(host *rtnl.Conn, c Config, addresses []Address) (rtnl.Link, error) {
	link, err := host.LinkByName(c.Name)
	if netlink.IsNotExist(err) {
		link, err = create(host, c, addresses)
	}
	if err != nil {
		return rtnl.Link{}, err
	}
	if err := requireBridge(link); err != nil {
		return rtnl.Link{}, err
	}
	if err := fixMAC(host, &link, bridgeMAC(c, addresses)); err != nil {
		return rtnl.Link{}, err
	}

	var changes []*netlink.Message
	if !link.Up {
		changes = append(changes, rtnl.SetUp(link.Index))
	}

	// Pods get the bridge's MTU, and the configuration may have changed since the bridge was made.
	if c.MTU != 0 && link.MTU != c.MTU {
		changes = append(changes, rtnl.SetMTU(link.Index, c.MTU))
		link.MTU = c.MTU
	}

	if c.Promiscuous {
		changes = append(changes, rtnl.SetPromiscuous(link.Index, true))
	}

	if c.VLANs.Wanted() {
		changes = append(changes, rtnl.SetVLANFiltering(c.Name))
	}

	if len(changes) > 0 {
		if err := host.Must(changes...); err != nil {
			return rtnl.Link{}, explainVLAN(err)
		}
	}

	if !c.IsGateway {
		return link, nil
	}

	gateway, err := ensureGatewayLink(host, c, link)
	if err != nil {
		return rtnl.Link{}, err
	}

	return link, ensureGateways(host, c, gateway, addresses)
}

func requireBridge(link rtnl.Link) error {
	if link.Kind != rtnl.KindBridge {
		return fmt.Errorf("interface %s is there already and is not a bridge", link.Name)
	}
	return nil
}

// create makes the bridge; another process may do it at the same time. A MAC address of its own keeps it from
// taking over those of its ports, which would change under the pods' ARP caches.
func create(host *rtnl.Conn, c Config, addresses []Address) (rtnl.Link, error) {
	err := host.Must(rtnl.NewBridge(c.Name, bridgeMAC(c, addresses), c.MTU))
	if err != nil && !netlink.IsExist(err) {
		return rtnl.Link{}, err
	}
	link, err := host.LinkByName(c.Name)
	if err != nil {
		return rtnl.Link{}, err
	}
	return link, sysctl.EnsureIfPresent("net/ipv6/conf/"+c.Name+"/accept_ra", "0")
}

// ensureGateways gives the bridge its addresses, and lets the host forward in their families. They are sent
// each time: one that is there already costs a refusal, and no look before.
func ensureGateways(host *rtnl.Conn, c Config, bridge rtnl.Link, addresses []Address) error {
	var forward4, forward6 bool
	for _, a := range addresses {
		if !a.Gateway.IsValid() {
			continue
		}

		if a.Gateway.Is4() {
			forward4 = true
		} else {
			forward6 = true
		}

		if err := ensureGateway(host, c, bridge, a.gatewayPrefix()); err != nil {
			return fmt.Errorf("gateway of bridge %s: %w", c.Name, err)
		}
	}

	// Only for families that pods have: forwarding changes how the host treats router advertisements.
	if forward4 {
		if err := EnsureForwarding(host, false); err != nil {
			return err
		}
	}

	if forward6 {
		return EnsureForwarding(host, true)
	}

	return nil
}

// EnsureForwarding lets the host forward packets of IPv4 or IPv6. A kernel without the setting is success.
func EnsureForwarding(host *rtnl.Conn, is6 bool) error {
	if forwards, err := host.Forwards(is6); forwards && err == nil {
		return nil
	}
	if is6 {
		return sysctl.SetIfPresent("net/ipv6/conf/all/forwarding", "1")
	}
	return sysctl.SetIfPresent("net/ipv4/ip_forward", "1")
}

func ensureGateway(host *rtnl.Conn, c Config, bridge rtnl.Link, want netip.Prefix) error {
	err := addAddress(host, bridge, want)
	if netlink.IsExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return resolveConflicts(host, c, bridge, want)
}

// addAddress adds an address to the bridge, on which IPv6 may be off.
func addAddress(host *rtnl.Conn, bridge rtnl.Link, want netip.Prefix) error {
	if want.Addr().Is6() {
		if err := sysctl.EnsureIfPresent("net/ipv6/conf/"+bridge.Name+"/disable_ipv6", "0"); err != nil {
			return err
		}
	}
	return host.Must(rtnl.NewAddress(bridge.Index, want, rtnl.NoDAD))
}

// resolveConflicts deals with other addresses on a bridge that has just got a gateway address: it removes
// them, or the new one.
func resolveConflicts(host *rtnl.Conn, c Config, bridge rtnl.Link, want netip.Prefix) error {
	have, err := host.Addresses(bridge.Index)
	if err != nil {
		return err
	}

	others := conflicting(have, want)
	if len(others) == 0 {
		return nil
	}
	if c.ForceAddress {
		return removeAddresses(host, bridge, others)
	}

	return errors.Join(conflictError(others[0], want), removeAddresses(host, bridge, []netip.Prefix{want}))
}

// removeAddresses removes addresses; those that are not there are fine.
func removeAddresses(host *rtnl.Conn, bridge rtnl.Link, addresses []netip.Prefix) error {
	for _, a := range addresses {
		err := host.Must(rtnl.DeleteAddress(bridge.Index, a))
		if err != nil && !netlink.IsNotExist(err) {
			return err
		}
	}
	return nil
}

// conflicting returns the addresses that a bridge cannot have beside a gateway address: others of IPv4, and
// those of IPv6 whose subnet overlaps.
func conflicting(have []netip.Prefix, want netip.Prefix) (all []netip.Prefix) {
	for _, other := range have {
		if other == want || !prefix.SameFamily(other.Addr(), want.Addr()) {
			continue
		}
		if want.Addr().Is4() || other.Overlaps(want) {
			all = append(all, other)
		}
	}
	return all
}

func conflictError(other, want netip.Prefix) error {
	return fmt.Errorf("it has address %s already, other than %s (forceAddress replaces it)", other, want)
}

// Usable returns an error when the next Attach would fail: the bridge's name is another interface's, or the
// bridge has addresses that keep it from getting a gateway's. Of the addresses in a set, a pod gets one.
func Usable(host *rtnl.Conn, c Config, sets [][]Address) error {
	link, err := host.LinkByName(c.Name)
	if netlink.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := requireBridge(link); err != nil || !c.IsGateway || c.ForceAddress {
		return err
	}

	if name := c.GatewayLink(); name != c.Name {
		link, err = host.LinkByName(name)
		if netlink.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}

	have, err := host.Addresses(link.Index)
	if err != nil {
		return err
	}

	for _, set := range sets {
		if err := oneFits(have, set); err != nil {
			return fmt.Errorf("gateway of bridge %s: %w", c.Name, err)
		}
	}

	return nil
}

// oneFits returns an error unless the bridge can have the gateway of one of the addresses.
func oneFits(have []netip.Prefix, set []Address) (err error) {
	for _, a := range set {
		want := a.gatewayPrefix()
		others := conflicting(have, want)
		if !a.Gateway.IsValid() || slices.Contains(have, want) || len(others) == 0 {
			return nil
		}
		err = conflictError(others[0], want)
	}
	return err
}
