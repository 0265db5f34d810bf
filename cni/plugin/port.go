package plugin

import (
	"context"
	"net/netip"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/listener"
	"github.com/trivet-node/trivet/cni/portrecord"
	"github.com/trivet-node/trivet/internal/undo"
)

// doesPorts: in upstream's chain, portmap does the host ports.
func (c *call) doesPorts() bool { return c.Role == conf.TrivetCNI }

// nat makes the rules of the network fit and publishes the pod's host ports.
func (c *call) nat(back *undo.Stack, addresses []bridge.Address) error {
	ports := c.natPorts(addresses)
	if !c.IPMasq && len(ports) == 0 {
		return nil
	}
	if err := notListenedOn(ports); err != nil {
		return err
	}

	return withNAT(c.NATConfig(), func(t *hostnat.Table) error {
		if err := t.Ensure(); err != nil || len(ports) == 0 {
			return err
		}

		// The rules are there now, those that keep pods from the host's loopback addresses among them.
		if c.SNAT {
			if err := bridge.RouteLoopback(c.Bridge); err != nil {
				return err
			}
		}

		back.Push("withdraw host ports", func(context.Context) error {
			if err := forgetPorts(c.pool, c.owner()); err != nil {
				return err
			}

			return withNAT(c.NATConfig(), func(t *hostnat.Table) error {
				return t.Remove(c.owner().Label(), nil)
			})
		})

		record := portrecord.Record{Owner: c.owner(), Ports: ports}
		// With the lock held, as GC would take a record that is being written for what a killed ADD left.
		err := c.pool.Locked(func() error { return portrecord.Of(c.pool).Write(record) })
		if err != nil {
			return err
		}

		return t.AddPorts(c.owner().Label(), ports)
	})
}

// forgetPorts removes the record, before the host ports go: nobody puts them back from then on.
func forgetPorts(pool *ipam.Pool, owner ipam.Owner) error {
	if pool == nil {
		return nil
	}
	return pool.Locked(func() error { return portrecord.Of(pool).Remove(owner) })
}

// notListenedOn refuses host ports that a process of the host has: the pod would take them over.
func notListenedOn(ports []hostnat.Port) error {
	var wanted []listener.Port
	for _, p := range ports {
		address := p.HostIP
		if !address.IsValid() {
			address = unspecified(p.Pod.Addr())
		}
		wanted = append(wanted, listener.Port{Protocol: p.Protocol,
			Address: netip.AddrPortFrom(address, p.HostPort)})
	}
	return listener.Refuse(wanted)
}

func unspecified(like netip.Addr) netip.Addr {
	if like.Is4() {
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// natPorts pairs the wanted host ports with the pod's addresses: one of each family, unless a host address
// names the family.
func (c *call) natPorts(addresses []bridge.Address) []hostnat.Port {
	var all []hostnat.Port
	if !c.doesPorts() {
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
			port := hostnat.Port{HostPort: p.HostPort, Protocol: p.Protocol,
				Pod: netip.AddrPortFrom(ip, p.ContainerPort)}
			if !p.HostIP.IsUnspecified() {
				port.HostIP = p.HostIP
			}

			all = append(all, port)
		}
	}

	return all
}

// checkNAT tells what of the network's rules and of the pod's host ports is not there.
func (c *call) checkNAT(addresses []bridge.Address) error {
	ports := c.natPorts(addresses)
	if !c.IPMasq && len(ports) == 0 {
		return nil
	}
	return withNAT(c.NATConfig(), func(t *hostnat.Table) error {
		if err := t.Check(); err != nil {
			return err
		}
		return t.HasPorts(ports)
	})
}
