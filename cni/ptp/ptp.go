// Package ptp connects a container to the host by a veth pair without a bridge: the host's end has the
// gateway's address, and the host a route to each address of the pod. All that a pod sends passes the host.
package ptp

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
	"github.com/trivet-node/trivet/internal/blocking"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Config is what is the same for all pods of a network.
type Config struct {
	Network string
	// MTU 0 leaves the kernel's default.
	MTU int
}

// Attach connects the pod. After an error the veth is gone.
func Attach(host *rtnl.Conn, c Config, a bridge.Attachment) (ends bridge.Ends, err error) {
	pod, err := blocking.Open(a.Netns, os.O_RDONLY, 0)
	if err != nil {
		return ends, fmt.Errorf("open network namespace: %w", err)
	}
	defer func() { _ = pod.Close() }()

	v := bridge.NewPair(c.Network, a)
	v.MTU = c.MTU
	v.PeerNamespace = int(pod.Fd())

	alias := rtnl.SetAlias(v.Name, bridge.Alias(c.Network, a.Owner))
	if err := bridge.Connect(host, a, v, alias); err != nil {
		return ends, err
	}

	err = namespace.Visit(func() (err error) {
		ends.Pod, err = setUp(a)
		return err
	}, a.Netns)
	if err == nil {
		ends.Host, err = setUpHost(host, a, v.Name)
	}
	if err != nil {
		return ends, errors.Join(err, host.EnsureNoLink(v.Name))
	}

	return ends, nil
}

// setUpHost gives the host's end the gateways, and the host routes to the pod.
func setUpHost(host *rtnl.Conn, a bridge.Attachment, name string) (rtnl.Link, error) {
	link, err := host.LinkByName(name)
	if err != nil {
		return link, err
	}

	messages := hostMessages(a, link.Index)
	for _, ip := range addressesOf(a) {
		if ip.Is6() {
			off := sysctl.EnsureIfPresent("net/ipv6/conf/"+name+"/disable_ipv6", "0")
			if off != nil {
				return link, off
			}
		}
		if err := bridge.EnsureForwarding(host, ip.Is6()); err != nil {
			return link, err
		}
	}

	if err := host.Must(messages...); err != nil {
		return link, err
	}
	return link, bridge.Settle(host, name)
}

// hostMessages configures the host's end with an index.
func hostMessages(a bridge.Attachment, index int) (all []*netlink.Message) {
	var gateways []netip.Addr
	for _, address := range a.Addresses {
		if address.Gateway.IsValid() && !slices.Contains(gateways, address.Gateway) {
			gateways = append(gateways, address.Gateway)
			all = append(all, rtnl.NewAddress(index, prefix.Single(address.Gateway), rtnl.NoDAD))
		}
	}
	for _, ip := range addressesOf(a) {
		all = append(all, rtnl.NewRoute(rtnl.Route{Dst: prefix.Single(ip), Index: index}))
	}
	return all
}

func addressesOf(a bridge.Attachment) (all []netip.Addr) {
	for _, address := range a.Addresses {
		all = append(all, address.Prefix.Addr())
	}
	return all
}

// setUp configures the pod's end, in the pod's network namespace.
func setUp(a bridge.Attachment) (rtnl.Link, error) {
	pod, err := rtnl.Open()
	if err != nil {
		return rtnl.Link{}, err
	}
	defer func() { _ = pod.Close() }()

	link, err := pod.LinkByName(a.Owner.IfName)
	if err != nil {
		return link, err
	}

	// Before the interface is up: a router advertisement may come at once.
	conf := "net/ipv6/conf/" + a.Owner.IfName
	settings := []sysctl.Setting{{Name: conf + "/accept_ra", Value: "0"}}
	if slices.ContainsFunc(addressesOf(a), netip.Addr.Is6) {
		settings = append(settings, sysctl.Setting{Name: conf + "/disable_ipv6", Value: "0"})
	}
	if err := sysctl.SetIPIfPresent(settings); err != nil {
		return link, err
	}

	if err := pod.Must(podMessages(a, link.Index)...); err != nil {
		return link, err
	}
	return link, bridge.Settle(pod, a.Owner.IfName)
}

// loopbackIndex is the index of lo in every network namespace.
const loopbackIndex = 1

// podMessages configures the pod's end with an index. A pod has no neighbours on the link but the host.
func podMessages(a bridge.Attachment, index int) []*netlink.Message {
	messages := []*netlink.Message{rtnl.SetUp(loopbackIndex)}
	for _, address := range a.Addresses {
		messages = append(messages, rtnl.NewAddress(index, address.Prefix, rtnl.NoDAD|rtnl.NoPrefixRoute))
	}

	messages = append(messages, rtnl.SetUp(index))
	for _, r := range podRoutes(a) {
		r.Index = index
		messages = append(messages, rtnl.NewRoute(r))
	}

	return messages
}

// podRoutes returns the routes that lead to the gateways and by them to the rest of the subnets, then those
// of the attachment. Each is there once.
func podRoutes(a bridge.Attachment) (routes []rtnl.Route) {
	var wanted []rtnl.Route
	for _, address := range a.Addresses {
		if !address.Gateway.IsValid() {
			continue
		}

		own := address.Prefix.Addr()
		wanted = append(wanted, rtnl.Route{Dst: prefix.Single(address.Gateway), Src: own})
		if subnet := address.Prefix.Masked(); !subnet.IsSingleIP() {
			wanted = append(wanted, rtnl.Route{
				Dst:     subnet,
				Gateway: address.Gateway,
				Src:     own,
			})
		}
	}

	seen := map[[2]netip.Prefix]bool{}
	for _, r := range slices.Concat(wanted, a.Routes) {
		key := [2]netip.Prefix{r.Dst, prefix.Single(orUnspecified(r.Gateway, r.Dst.Addr()))}
		if !seen[key] || r.Table != 0 || r.Priority != 0 {
			seen[key] = true
			routes = append(routes, r)
		}
	}

	return routes
}

func orUnspecified(gateway, like netip.Addr) netip.Addr {
	switch {
	case gateway.IsValid():
		return gateway
	case like.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// Check returns an error that names the first thing of an attachment that is not as Attach made it.
func Check(host *rtnl.Conn, a bridge.Attachment) error {
	peer := 0
	err := namespace.Visit(func() error {
		link, err := bridge.CheckPod(a, podRoutes(a))
		peer = link.Peer
		return err
	}, a.Netns)
	if err != nil {
		return err
	}

	link, err := host.LinkByIndex(peer)
	if err != nil {
		return err
	}

	for _, ip := range addressesOf(a) {
		there, err := host.HasRoute(rtnl.Route{Dst: prefix.Single(ip), Index: link.Index})
		if err != nil {
			return err
		}
		if !there {
			return fmt.Errorf("route to %s by interface %s is not there", ip, link.Name)
		}
	}

	return nil
}
