package bridge

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Check tells what of an attachment is not as Attach made it. What is there beside it is other plugins'
// business.
func Check(host *rtnl.Conn, c Config, a Attachment) error {
	bridge, err := host.LinkByName(c.Name)
	if err != nil {
		return err
	}
	if !bridge.Up {
		return fmt.Errorf("bridge %s is down", c.Name)
	}

	if c.IsGateway {
		if err := checkGateway(host, c, bridge, a); err != nil {
			return err
		}
	}

	port, err := host.LinkByName(HostName(c.Network, a.Owner))
	if err != nil {
		return err
	}

	switch {
	case port.Master != bridge.Index:
		return fmt.Errorf("interface %s is no port of bridge %s", port.Name, c.Name)
	case !port.Up:
		return fmt.Errorf("interface %s is down", port.Name)
	case port.Port == nil || *port.Port != c.Port:
		return fmt.Errorf("port %s of bridge %s has flags %+v, not %+v", port.Name, c.Name, port.Port, c.Port)
	case a.MTU != 0 && port.MTU != a.MTU:
		return fmt.Errorf("interface %s has MTU %d, not %d", port.Name, port.MTU, a.MTU)
	}

	return namespace.Visit(func() error { return checkPod(c, a) }, a.Netns)
}

func checkGateway(host *rtnl.Conn, c Config, bridge rtnl.Link, a Attachment) error {
	have, err := host.Addresses(bridge.Index)
	if err != nil {
		return err
	}
	for _, address := range a.Addresses {
		if address.Gateway.IsValid() &&
			!slices.ContainsFunc(have, func(p netip.Prefix) bool { return p.Addr() == address.Gateway }) {
			return fmt.Errorf("bridge %s has not the gateway address %s", c.Name, address.Gateway)
		}
	}
	return nil
}

func checkPod(c Config, a Attachment) error {
	pod, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = pod.Close() }()

	link, err := pod.LinkByName(a.Owner.IfName)
	if err != nil {
		return err
	}
	if !link.Up {
		return fmt.Errorf("interface %s is down", a.Owner.IfName)
	}
	if a.MAC != nil && link.MAC.String() != a.MAC.String() {
		return fmt.Errorf("interface %s has MAC address %s, not %s", a.Owner.IfName, link.MAC, a.MAC)
	}
	if a.MTU != 0 && link.MTU != a.MTU {
		return fmt.Errorf("interface %s has MTU %d, not %d", a.Owner.IfName, link.MTU, a.MTU)
	}

	have, err := pod.Addresses(link.Index)
	if err != nil {
		return err
	}

	for _, address := range a.Addresses {
		if !slices.Contains(have, address.Prefix) {
			return fmt.Errorf("interface %s has not the address %s", a.Owner.IfName, address.Prefix)
		}
	}

	for _, r := range podRoutes(c, a) {
		r.Index = link.Index
		there, err := pod.HasRoute(r)
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("route to %s by interface %s is not there", r.Dst, a.Owner.IfName)
		}
	}

	return nil
}
