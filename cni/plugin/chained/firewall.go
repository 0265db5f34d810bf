package chained

import (
	"context"
	"net/netip"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/meta"
	"github.com/trivet-node/trivet/cni/firewall"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/internal/undo"
)

// Firewall is upstream's plugin of that name: it lets the traffic of containers through the host's
// firewall, and keeps bridges apart.
type Firewall struct{}

// read returns the configuration with a backend, and the container's addresses.
func (Firewall) read(c *call.Call) (config firewall.Config, p firewall.Pod, err error) {
	if config, err = meta.ReadFirewall(c.Stdin); err != nil {
		return config, p, err
	}
	if err := c.RequirePrevious(); err != nil {
		return config, p, err
	}
	if config.Backend == "" {
		config.Backend = firewall.Choose()
	}

	return config, allowed(c), nil
}

// allowed returns the container as the firewall knows it. As upstream, all addresses of prevResult are its
// own.
func allowed(c *call.Call) firewall.Pod {
	p := firewall.Pod{Network: c.Name, Owner: c.Owner}
	if c.Previous == nil {
		return p
	}
	for _, ip := range c.Previous.IPs {
		if a := prefix.Addr(ip.Address.IP); a.IsValid() {
			p.Addresses = append(p.Addresses, a)
		}
	}
	return p
}

// bridgeOf returns the first interface of prevResult, which is the bridge if the main plugin is of that name.
func bridgeOf(c *call.Call) string {
	if len(c.Previous.Interfaces) == 0 {
		return ""
	}
	return c.Previous.Interfaces[0].Name
}

// Add writes the rules.
func (f Firewall) Add(c *call.Call) (err error) {
	config, p, err := f.read(c)
	if err != nil {
		return err
	}

	var back undo.Stack
	defer back.Unwind(context.Background(), &err)
	back.Push("remove firewall rules", func(context.Context) error { return config.Forbid(p) })

	if err := config.Allow(p); err != nil {
		return err
	}
	if err := config.Isolate(bridgeOf(c), p.Addresses); err != nil {
		return err
	}

	return c.Print(c.Previous)
}

// Check returns an error that names the first rule that is missing.
func (f Firewall) Check(c *call.Call) error {
	config, p, err := f.read(c)
	if err != nil {
		return err
	}
	if err := config.Check(p); err != nil {
		return err
	}
	return config.CheckIsolation(bridgeOf(c), p.Addresses)
}

// Del removes the rules of the addresses on record and of prevResult, in whichever firewall they are.
func (Firewall) Del(c *call.Call) error {
	config, err := meta.ReadFirewallLeniently(c.Stdin)
	if err != nil {
		return err
	}

	// DEL does without a prevResult that it cannot read.
	if c.ReadPrevious() != nil {
		c.Previous = nil
	}

	return config.Forbid(allowed(c))
}

// GC removes the rules of attachments that the runtime does not have.
func (Firewall) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}
	config, err := meta.ReadFirewallLeniently(c.Stdin)
	if err != nil {
		return err
	}
	return config.Keep(t.Network, t.Valid.Has)
}

// Status returns an error when the next Add would fail.
func (Firewall) Status(c *call.Call) error {
	config, err := meta.ReadFirewall(c.Stdin)
	if err != nil {
		return err
	}
	if config.Backend == "" {
		config.Backend = firewall.Choose()
	}
	if config.Backend == firewall.Firewalld {
		if err := firewall.IsRunning(); err != nil {
			return err
		}
	}

	// Which families a container will have is not known: IPv4 stands for both.
	return call.Rehearse(func() error { return config.Write("status", netip.MustParseAddr("192.0.2.1")) })
}
