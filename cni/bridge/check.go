package bridge

import (
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Check returns an error that names the first thing of an attachment that is not as Attach made it. What
// other plugins have added is not looked at.
func Check(host *rtnl.Conn, c Config, a Attachment) error {
	bridge, err := host.LinkByName(c.Name)
	if err != nil {
		return err
	}
	if !bridge.Up {
		return fmt.Errorf("bridge %s is down", c.Name)
	}

	if bridge.Kind != rtnl.KindBridge {
		return fmt.Errorf("interface %s is not a bridge", c.Name)
	}

	if c.IsGateway {
		if err := checkGatewayLink(host, c, a.Addresses); err != nil {
			return err
		}
	}

	// The host's end first: the pod's cannot be right without it.
	port, err := hostEnd(host, c, a)
	if err != nil {
		return err
	}
	if err := checkPort(c, a, bridge, port); err != nil {
		return err
	}
	if err := checkVLANs(host, c.VLANs, port); err != nil || c.PodDown {
		return err
	}

	return namespace.Visit(func() error {
		_, err := CheckPod(a, podRoutes(c, a))
		return err
	}, a.Netns)
}

// hostEnd returns the host's end of an attachment: of our name, or what the pod's end leads to, since
// upstream's plugin gives it a name of chance.
func hostEnd(host *rtnl.Conn, c Config, a Attachment) (rtnl.Link, error) {
	link, err := host.LinkByName(HostName(c.Network, a.Owner))
	if !netlink.IsNotExist(err) {
		return link, err
	}

	pod, err := podEnd(a)
	if err != nil {
		return link, err
	}
	return host.LinkByIndex(pod.Peer)
}

// podEnd returns the pod's end of an attachment.
func podEnd(a Attachment) (link rtnl.Link, err error) {
	err = namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()

		link, err = pod.LinkByName(a.Owner.IfName)
		return err
	}, a.Netns)
	return link, err
}

// EndsOf returns both ends of an attachment that is there, whichever program has made it.
func EndsOf(host *rtnl.Conn, c Config, a Attachment) (ends Ends, err error) {
	if ends.Pod, err = podEnd(a); err != nil {
		return ends, err
	}
	ends.Host, err = hostEnd(host, c, a)
	return ends, err
}

// checkGatewayLink returns an error unless the bridge, or the host's own port of it, is up, in the VLAN of
// the pods, and has the gateway's addresses.
func checkGatewayLink(host *rtnl.Conn, c Config, addresses []Address) error {
	link, err := host.LinkByName(c.GatewayLink())
	if err != nil {
		return err
	}
	if !link.Up {
		return fmt.Errorf("interface %s, the gateway, is down", link.Name)
	}

	if link.Name != c.Name {
		if err := checkGatewayPort(host, c, link); err != nil {
			return err
		}
	}

	have, err := host.Addresses(link.Index)
	if err != nil {
		return err
	}
	return checkGateways(c, have, addresses)
}

// checkGateways compares the addresses that the bridge has with the gateways of a pod's addresses.
func checkGateways(c Config, have []netip.Prefix, addresses []Address) error {
	for _, address := range addresses {
		gateway := address.Gateway
		isGateway := func(p netip.Prefix) bool { return p.Addr() == gateway }
		if gateway.IsValid() && !slices.ContainsFunc(have, isGateway) {
			return fmt.Errorf("bridge %s does not have the gateway address %s", c.Name, gateway)
		}
	}
	return nil
}

// checkPort compares the host's end of the pair with the configuration.
func checkPort(c Config, a Attachment, bridge, port rtnl.Link) error {
	switch {
	case port.Master != bridge.Index:
		return fmt.Errorf("interface %s is not a port of bridge %s", port.Name, c.Name)
	case !port.Up:
		return fmt.Errorf("interface %s is down", port.Name)
	case port.Port == nil || *port.Port != c.Port:
		return fmt.Errorf("port %s of bridge %s has flags %+v, not %+v", port.Name, c.Name, port.Port, c.Port)
	case a.HostMTU != 0 && port.MTU != a.HostMTU:
		return fmt.Errorf("interface %s has MTU %d, not %d", port.Name, port.MTU, a.HostMTU)
	}
	return nil
}

// CheckPod looks at the pod's end of the pair, which it returns, in the pod's network namespace: routes are
// those that it should have.
func CheckPod(a Attachment, routes []rtnl.Route) (link rtnl.Link, err error) {
	pod, err := rtnl.Open()
	if err != nil {
		return link, err
	}
	defer func() { _ = pod.Close() }()

	if link, err = pod.LinkByName(a.Owner.IfName); err != nil {
		return link, err
	}

	have, err := pod.Addresses(link.Index)
	if err != nil {
		return link, err
	}
	if err := checkInterface(a, link, have); err != nil {
		return link, err
	}

	// Other networks may have routes to the same destinations: only those by this interface count.
	for _, r := range routes {
		r.Index = link.Index
		there, err := pod.HasRoute(r)
		if err != nil {
			return link, err
		}
		if !there {
			return link, fmt.Errorf("route to %s by interface %s is not there", r.Dst, a.Owner.IfName)
		}
	}

	return link, nil
}

// checkInterface compares the pod's interface, which has some addresses, with the attachment.
func checkInterface(a Attachment, link rtnl.Link, have []netip.Prefix) error {
	ifname := a.Owner.IfName
	switch {
	case !link.Up:
		return fmt.Errorf("interface %s is down", ifname)
	case a.MAC != nil && link.MAC.String() != a.MAC.String():
		return fmt.Errorf("interface %s has MAC address %s, not %s", ifname, link.MAC, a.MAC)
	case a.MTU != 0 && link.MTU != a.MTU:
		return fmt.Errorf("interface %s has MTU %d, not %d", ifname, link.MTU, a.MTU)
	}

	for _, address := range a.Addresses {
		if !slices.Contains(have, address.Prefix) {
			return fmt.Errorf("interface %s does not have the address %s", ifname, address.Prefix)
		}
	}

	return nil
}
