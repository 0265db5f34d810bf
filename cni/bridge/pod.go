package bridge

import (
	"slices"

	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sysctl"
)

// setUp configures the pod's end, in the pod's network namespace, and returns its index there.
func setUp(c Config, a Attachment) (index int, err error) {
	pod, err := rtnl.Open()
	if err != nil {
		return 0, err
	}
	defer func() { _ = pod.Close() }()

	link, err := pod.LinkByName(a.Owner.IfName)
	if err != nil {
		return 0, err
	}

	// Before the interface is up: a router advertisement may come at once.
	if err := sysctl.SetIPIfPresent(podSettings(c, a)); err != nil {
		return 0, err
	}

	if err := pod.Must(podMessages(c, a, link.Index)...); err != nil {
		return 0, err
	}
	return link.Index, Settle(pod, a.Owner.IfName)
}

// loopbackIndex is the index of lo in every network namespace.
const loopbackIndex = 1

// podMessages returns what configures the pod's interface with an index: lo up, addresses, no redirects,
// interface up, routes.
func podMessages(c Config, a Attachment, index int) []*netlink.Message {
	flags := uint32(0)
	if !c.DAD {
		flags |= rtnl.NoDAD
	}
	if c.HostRouted {
		flags |= rtnl.NoPrefixRoute
	}

	messages := []*netlink.Message{rtnl.SetUp(loopbackIndex)}
	for _, address := range a.Addresses {
		messages = append(messages, rtnl.NewAddress(index, address.Prefix, flags))
	}

	if c.HostRouted {
		messages = append(messages, rtnl.IgnoreRedirects(index))
	}
	messages = append(messages, rtnl.SetUp(index))

	// The routes of another network to the same destinations stay: a container's second interface does not
	// replace the default route of the first one.
	for _, r := range podRoutes(c, a) {
		r.Index = index
		messages = append(messages, rtnl.NewRoute(r))
	}

	return messages
}

// podRoutes returns the pod's routes, preceded by those that lead to the gateways. Each is there once: two
// addresses of a pod may have one gateway.
func podRoutes(c Config, a Attachment) []rtnl.Route {
	var wanted []rtnl.Route
	for _, address := range a.Addresses {
		if !c.HostRouted || !address.Gateway.IsValid() {
			continue
		}

		wanted = append(wanted,
			rtnl.Route{Dst: prefix.Single(address.Gateway)},
			rtnl.Route{Dst: address.Prefix.Masked(), Gateway: address.Gateway},
		)
	}

	var routes []rtnl.Route
	for _, r := range slices.Concat(wanted, a.Routes) {
		if !slices.Contains(routes, r) {
			routes = append(routes, r)
		}
	}

	return routes
}

// podSettings returns the settings of the pod's network namespace.
func podSettings(c Config, a Attachment) []sysctl.Setting {
	ifname := a.Owner.IfName
	var all []sysctl.Setting

	// The host sees packets that come in and go out by the same bridge, and says so by ICMP redirects. A pod
	// that believed them would bypass the host. Both "all" and the interface count (IN_DEV_ORCONF), of which
	// the latter's is a message (IgnoreRedirects).
	if c.HostRouted {
		all = append(all, sysctl.Setting{Name: "net/ipv4/conf/all/accept_redirects", Value: "0"})
	}

	if slices.ContainsFunc(a.Addresses, func(x Address) bool { return x.Prefix.Addr().Is6() }) {
		all = append(all,
			sysctl.Setting{Name: "net/ipv6/conf/" + ifname + "/disable_ipv6", Value: "0"},
			sysctl.Setting{Name: "net/ipv6/conf/" + ifname + "/accept_redirects", Value: "0"},
			sysctl.Setting{Name: "net/ipv6/conf/lo/disable_ipv6", Value: "0"},
		)

		// The kernel announces that the address has moved when it knows that nobody else has it.
		if c.DAD {
			all = append(all, sysctl.Setting{Name: "net/ipv6/conf/" + ifname + "/ndisc_notify", Value: "1"})
		}
	}

	// Any pod on the bridge can say that it is a router (CVE-2020-10749), and a pod that has IPv4 alone would
	// prefer it for whatever has an IPv6 address. What the pod has comes from IPAM. On a network without IPAM
	// advertisements are the only way to an address, and stay.
	if len(a.Addresses) > 0 {
		all = append(all, sysctl.Setting{Name: "net/ipv6/conf/" + ifname + "/accept_ra", Value: "0"})
	}

	return all
}
