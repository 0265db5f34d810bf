package chained

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/conf/meta"
	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/hostport"
	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/plugin/call"
	"github.com/trivet-node/trivet/cni/portmap"
	"github.com/trivet-node/trivet/cni/prefix"
)

// PortMap is upstream's plugin of that name: it publishes host ports.
type PortMap struct{}

// read returns the host ports of the attachment.
func (PortMap) read(c *call.Call) (portmap.Pod, error) {
	n, err := meta.ReadPortMap(c.Stdin)
	if err != nil {
		return portmap.Pod{}, err
	}
	if err := c.RequirePrevious(); err != nil {
		return portmap.Pod{}, err
	}

	pod := portmap.Pod{Config: n.Config, Owner: c.Owner}
	var own []netip.Addr
	for _, ip := range c.PreviousIPs() {
		p, err := prefix.FromIPNet(ip.Address)
		if err != nil {
			return pod, fmt.Errorf("%w: prevResult: %w", conf.ErrInvalid, err)
		}

		own = append(own, p.Addr())
		pod.Subnets = append(pod.Subnets, p)
	}

	pod.Ports = hostport.Pair(n.Ports, own)
	return pod, nil
}

// Add publishes the host ports. One of a pod that a process of the host listens on is an error that names it.
func (p PortMap) Add(c *call.Call) error {
	pod, err := p.read(c)
	if err != nil {
		return err
	}
	if len(pod.Ports) == 0 {
		return c.Print(c.Previous)
	}
	if c.IsPod() {
		if err := hostport.Refuse(pod.Ports); err != nil {
			return err
		}
	}
	if err := hostnat.Taken(c.Owner.Label(), pod.Ports); err != nil {
		return err
	}

	// Two containers may have one port by conditions that differ.
	if len(pod.Conditions4)+len(pod.Conditions6) == 0 {
		if err := portmap.Taken(c.Owner.ContainerID, pod.Ports); err != nil {
			return err
		}
	}

	if pod.Backend == "" {
		pod.Backend = portmap.Choose()
	}
	if err := pod.Publish(); err != nil {
		return err
	}

	return c.Print(c.Previous)
}

// Check returns an error unless the host ports are published.
func (p PortMap) Check(c *call.Call) error {
	pod, err := p.read(c)
	if err != nil || len(pod.Ports) == 0 {
		return err
	}
	return pod.Check()
}

// Del withdraws the host ports of the container, which it finds by its ID in both backends, whatever the call
// says about them.
func (PortMap) Del(c *call.Call) error {
	return portmap.Withdraw(c.Name, c.Owner.ContainerID)
}

// GC withdraws the host ports of containers that the runtime does not have.
func (PortMap) GC(c *call.Call) error {
	t, err := conf.ReadTeardown(c.Stdin)
	if err != nil || t.Valid == nil {
		return err
	}
	return portmap.Keep(t.Network, t.Valid.Owners())
}

// withoutTheHosts leaves out what names a chain of somebody else, or a set: the network namespace in which
// ADD is rehearsed does not have them.
func withoutTheHosts(c portmap.Config) portmap.Config {
	namesSet := func(condition string) bool {
		return strings.Contains(condition, "@") || strings.Contains(condition, "set")
	}

	c.SetMarkChain = ""
	for _, conditions := range []*[]string{&c.Conditions4, &c.Conditions6} {
		if slices.ContainsFunc(*conditions, namesSet) {
			*conditions = nil
		}
	}
	return c
}

// Status returns an error when the next Add would fail.
func (PortMap) Status(c *call.Call) error {
	n, err := meta.ReadPortMap(c.Stdin)
	if err != nil {
		return err
	}

	// Which families a container will have is not known: IPv4 stands for both.
	pod := portmap.Pod{
		Config: n.Config,
		Owner:  ipam.Owner{ContainerID: "status", IfName: c.Owner.IfName},
		Ports: []hostnat.Port{{
			HostPort: 1,
			Protocol: "tcp",
			Pod:      netip.MustParseAddrPort("192.0.2.1:1"),
		}},
	}
	if pod.Backend == "" {
		pod.Backend = portmap.Choose()
	}

	pod.Config = withoutTheHosts(pod.Config)
	return call.Rehearse(pod.Write)
}
