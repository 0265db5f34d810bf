package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Ensure makes the bridge fit: there, up, with the gateway addresses; the host forwards.
func Ensure(host *rtnl.Conn, c Config, addresses []Address) (rtnl.Link, error) {
	link, err := host.LinkByName(c.Name)
	if rtnl.Gone(err) {
		link, err = create(host, c, addresses)
	}
	if err != nil {
		return rtnl.Link{}, err
	}
	if err := isBridge(link); err != nil {
		return rtnl.Link{}, err
	}
	if err := pin(host, &link, bridgeMAC(c, addresses)); err != nil {
		return rtnl.Link{}, err
	}

	if !link.Up {
		if err := host.Must(rtnl.SetUp(link.Index)); err != nil {
			return rtnl.Link{}, err
		}
	}

	// Pods get the bridge's MTU, and a configuration may have changed it since the bridge was made.
	if c.MTU != 0 && link.MTU != c.MTU {
		if err := host.Must(rtnl.SetMTU(link.Index, c.MTU)); err != nil {
			return rtnl.Link{}, err
		}

		link.MTU = c.MTU
	}

	if c.Promisc {
		if err := host.Must(rtnl.SetPromiscuous(link.Index)); err != nil {
			return rtnl.Link{}, err
		}
	}

	if c.IsGateway {
		err = gateway(host, c, link, addresses)
	}

	return link, err
}

func isBridge(link rtnl.Link) error {
	if link.Kind != "bridge" {
		return fmt.Errorf("interface %s is there but is no bridge", link.Name)
	}
	return nil
}

func create(host *rtnl.Conn, c Config, addresses []Address) (rtnl.Link, error) {
	// A MAC of its own keeps the bridge from taking over its ports', which would change under the pods' ARP
	// caches.
	err := host.Must(rtnl.NewBridge(c.Name, bridgeMAC(c, addresses), c.MTU))
	if err != nil && !rtnl.Exists(err) {
		return rtnl.Link{}, err
	}

	link, err := host.LinkByName(c.Name)
	if err != nil {
		return rtnl.Link{}, err
	}
	if err := write("net/ipv6/conf/"+c.Name+"/accept_ra", "0"); err != nil {
		return rtnl.Link{}, err
	}

	return link, nil
}

// gateway gives the bridge its addresses. They are sent each time: one that is there costs a refusal and no
// look.
func gateway(host *rtnl.Conn, c Config, bridge rtnl.Link, addresses []Address) error {
	var families [2]bool
	for _, a := range addresses {
		if !a.Gateway.IsValid() {
			continue
		}

		want := netip.PrefixFrom(a.Gateway, a.Prefix.Bits())
		families[index(a.Gateway)] = true
		if a.Gateway.Is6() {
			if err := write("net/ipv6/conf/"+c.Name+"/disable_ipv6", "0"); err != nil {
				return err
			}
		}

		err := host.Must(rtnl.NewAddress(bridge.Index, want, rtnl.NoDAD))
		if rtnl.Exists(err) {
			continue
		}
		if err == nil {
			err = settle(host, c, bridge, want)
		}
		if err != nil {
			return fmt.Errorf("gateway of bridge %s: %w", c.Name, err)
		}
	}

	return forward(families)
}

// settle deals with other addresses on a bridge that has just got a gateway address.
func settle(host *rtnl.Conn, c Config, bridge rtnl.Link, want netip.Prefix) error {
	have, err := host.Addresses(bridge.Index)
	if err != nil {
		return err
	}

	for _, other := range rivals(have, want) {
		if c.Force {
			if err := host.Must(rtnl.DeleteAddress(bridge.Index, other)); err != nil && !rtnl.Gone(err) {
				return err
			}

			continue
		}

		return errors.Join(occupied(other, want), host.Must(rtnl.DeleteAddress(bridge.Index, want)))
	}

	return nil
}

// rivals are the addresses that cannot be beside a gateway address. IPv6 subnets beside each other are fine.
func rivals(have []netip.Prefix, want netip.Prefix) (all []netip.Prefix) {
	for _, other := range have {
		sameFamily := other.Addr().Is4() == want.Addr().Is4()
		if other != want && sameFamily && (want.Addr().Is4() || other.Overlaps(want)) {
			all = append(all, other)
		}
	}
	return all
}

func occupied(other, want netip.Prefix) error {
	return fmt.Errorf("it has address %s already, other than %s (forceAddress replaces it)", other, want)
}

// Usable tells why the next Attach would fail: the bridge's name is another link's, or the bridge has
// addresses that keep it from getting a gateway's. Of the addresses in a set, a pod gets one.
func Usable(host *rtnl.Conn, c Config, sets [][]Address) error {
	link, err := host.LinkByName(c.Name)
	if rtnl.Gone(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := isBridge(link); err != nil || !c.IsGateway || c.Force {
		return err
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

func oneFits(have []netip.Prefix, set []Address) (err error) {
	for _, a := range set {
		want := netip.PrefixFrom(a.Gateway, a.Prefix.Bits())
		others := rivals(have, want)
		if !a.Gateway.IsValid() || slices.Contains(have, want) || len(others) == 0 {
			return nil
		}
		err = occupied(others[0], want)
	}
	return err
}
