// Package firewall lets the traffic of containers through a firewall that drops what it does not know, with
// the rules of upstream's firewall plugin, and keeps networks apart (package isolation, or by iptables).
//
// Upstream's rules do not say whose they are, so the addresses of each attachment are on record: DEL needs
// neither prevResult nor the configuration that ADD had.
package firewall

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/iptables"
	"github.com/trivet-node/trivet/cni/isolation"
)

// Backend says which firewall it is.
type Backend string

// The backends.
const (
	IPTables  Backend = "iptables"
	Firewalld Backend = "firewalld"
	// NFTables has a table of its own for Policy. It lets nothing through: what a chain of another table
	// drops is dropped, whatever a chain of this one says.
	NFTables Backend = "nftables"
)

// Config is what is the same for all containers of a network.
type Config struct {
	Backend Backend
	// AdminChain is a chain of iptables for the administrator's rules, before those of containers.
	AdminChain string
	// Zone is the one of firewalld that containers are in.
	Zone   string
	Policy isolation.Policy
}

// Pod is an attachment as it is on record.
type Pod struct {
	Network   string       `json:"network"`
	Owner     ipam.Owner   `json:"owner"`
	Addresses []netip.Addr `json:"addresses"`
	// Zone is that of firewalld at the time.
	Zone string `json:"zone,omitempty"`
}

// Choose returns the backend for a configuration that names none: firewalld where it runs, or else iptables
// where it is installed.
func Choose() Backend {
	if daemon, err := connect(); err == nil {
		defer func() { _ = daemon.close() }()
		if daemon.running() {
			return Firewalld
		}
	}

	if errors.Is(iptables.Usable(iptables.IPv4, filter), iptables.ErrAbsent) {
		return NFTables
	}

	return IPTables
}

// Allow lets the traffic of a container through, and records it first. After an error, Forbid removes what
// is left.
func (c Config) Allow(p Pod) error {
	return locked(func() error { return c.allow(p) })
}

func (c Config) allow(p Pod) error {
	p.Zone = c.Zone
	if err := claim(p); err != nil {
		return err
	}
	if err := write(p); err != nil {
		return err
	}

	switch c.Backend {
	case IPTables:
		return c.allowIPTables(p)
	case Firewalld:
		return withDaemon(func(d daemon) error { return d.add(c.Zone, p.Addresses) })
	}

	return nil
}

// Write writes the rules of a container and of its bridge, those of iptables and nftables, and no record.
func (c Config) Write(bridge string, addresses ...netip.Addr) error {
	if c.Backend == IPTables {
		if err := c.allowIPTables(Pod{Addresses: addresses}); err != nil {
			return err
		}
	}
	return c.Isolate(bridge, addresses)
}

// Check returns an error unless the traffic of a container is let through.
func (c Config) Check(p Pod) error {
	switch c.Backend {
	case IPTables:
		return c.checkIPTables(p)
	case Firewalld:
		return withDaemon(func(d daemon) error { return d.check(c.Zone, p.Addresses) })
	}
	return nil
}

// Isolate keeps the containers of a bridge apart from others as Policy says. As upstream, every backend but
// nftables does it by iptables.
func (c Config) Isolate(bridge string, addresses []netip.Addr) error {
	if c.Policy.IsOpen() {
		return nil
	}
	if bridge == "" {
		return fmt.Errorf("ingressPolicy %s needs a bridge as the first interface of prevResult", c.Policy)
	}
	if c.Backend == NFTables {
		return isolation.Ensure(bridge, c.Policy)
	}

	return isolateIPTables(bridge, c.Policy, familiesOf(addresses))
}

// familiesOf returns those that have addresses.
func familiesOf(addresses []netip.Addr) (all []iptables.Family) {
	for _, family := range iptables.Families {
		if len(ofFamily(addresses, family)) > 0 {
			all = append(all, family)
		}
	}
	return all
}

// CheckIsolation returns an error unless Isolate's rules are there.
func (c Config) CheckIsolation(bridge string, addresses []netip.Addr) error {
	switch {
	case c.Policy.IsOpen():
		return nil
	case c.Backend == NFTables:
		return isolation.Check(bridge, c.Policy)
	}
	return checkIsolation(bridge, c.Policy, familiesOf(addresses))
}

// Forbid takes back what Allow did for an attachment: for the addresses on record, and for those that the
// caller knows. None is success.
func (c Config) Forbid(p Pod) error {
	return locked(func() error { return c.forbid(p) })
}

func (c Config) forbid(p Pod) error {
	recorded, ok := read(fileOf(p.Network, p.Owner))
	if ok {
		p.Addresses = append(p.Addresses, recorded.Addresses...)
		p.Zone = recorded.Zone
	}
	if p.Zone == "" {
		p.Zone = c.Zone
	}

	// The record of none says nothing, and has to go as well.
	if len(p.Addresses) == 0 {
		return removeRecord(p)
	}

	// The caller may know those on record.
	slices.SortFunc(p.Addresses, netip.Addr.Compare)
	p.Addresses = slices.Compact(p.Addresses)

	// An address may have been given to another container before this one's DEL came.
	others, err := othersAddresses(p)
	if err != nil {
		return err
	}

	p.Addresses = slices.DeleteFunc(p.Addresses, func(a netip.Addr) bool { return others[a] })
	if err := forbidIPTables(p); err != nil {
		return err
	}
	if err := forbidFirewalld(p); err != nil {
		return err
	}

	return removeRecord(p)
}

// forbidFirewalld removes a container from its zone. Where the daemon does not run there are no zones.
func forbidFirewalld(p Pod) error {
	d, err := connect()
	if err != nil {
		return nil
	}
	defer func() { _ = d.close() }()
	if d.running() {
		d.remove(p.Zone, p.Addresses)
	}
	return nil
}

// ForbidAddresses takes back what iptables lets through of addresses whose reservations are void, unless they
// are on record: upstream's rules say nothing else. Nobody gets one of them meanwhile.
func ForbidAddresses(addresses []netip.Addr) error {
	recorded, err := othersAddresses(Pod{})
	void := slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool { return recorded[a] })
	return errors.Join(err, forbidIPTables(Pod{Addresses: void}))
}

// Keep takes back what Allow did for attachments of a network that are not valid: CNI's GC.
func (c Config) Keep(network string, valid func(ipam.Owner) bool) error {
	return locked(func() error { return errors.Join(sweep(), c.keep(network, valid)) })
}

func (c Config) keep(network string, valid func(ipam.Owner) bool) error {
	pods, err := records(network)
	for _, p := range pods {
		if !valid(p.Owner) {
			err = errors.Join(err, c.forbid(p))
		}
	}
	return err
}
