package netd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Protocol marks the routes that trivet-netd made (ip route show proto 117). Others are never touched.
const Protocol = 117

const (
	// peerPriority is the metric of the routes to other nodes' pods. It is not the kernel's default, so that a route which an administrator
	// set (ip route add: 0 for IPv4, 1024 for IPv6) stands beside ours rather than in its place.
	peerPriority = 117
	// unreachablePriority is that of the route which answers for own pod addresses that no pod has: any other route wins.
	unreachablePriority = 1 << 30
)

// wantedRoutes are the routes to other nodes' pods through the nodes' addresses, as far as those are on a network that this node is on,
// and one that keeps packets to own pod addresses from leaving by the default route while the bridge is not there.
func wantedRoutes(own Node, all []Node, local []rtnl.InterfaceAddress, routers []netip.Addr) (routes []rtnl.Route, notes []string) {
	taken := map[netip.Prefix]string{}
	for _, pods := range own.PodCIDRs {
		taken[pods] = own.Name
		routes = append(routes, rtnl.Route{Dst: pods, Unreachable: true, Priority: unreachablePriority, Protocol: Protocol})
	}
	for _, node := range all {
		if node.Name == own.Name {
			continue
		}
		for _, pods := range node.PodCIDRs {
			if why := unfit(pods, own, all, local, routers); why != "" {
				notes = append(notes, fmt.Sprintf("node %s: no route to its pods %s: %s", node.Name, pods, why))
				continue
			}
			if other, ok := taken[pods]; ok {
				notes = append(notes, fmt.Sprintf("node %s: no route to its pods %s: node %s has the same pod CIDR", node.Name, pods, other))
				continue
			}
			gateway, index := nextHop(node, pods, local)
			if index == 0 {
				notes = append(notes, fmt.Sprintf("node %s: no route to its pods %s: none of its addresses %v is on a network of this node, and there is no overlay", node.Name, pods, node.Addresses))
				continue
			}
			taken[pods] = node.Name
			routes = append(routes, rtnl.Route{Dst: pods, Gateway: gateway, Index: index, Priority: peerPriority, Protocol: Protocol})
		}
	}
	return routes, notes
}

// unfit says why packets to pods may not be sent to another node: a wrong pod CIDR must not take over this node's own networks.
func unfit(pods netip.Prefix, own Node, all []Node, local []rtnl.InterfaceAddress, routers []netip.Addr) string {
	if pods.Bits() == 0 {
		return "that is everything"
	}
	for _, p := range own.PodCIDRs {
		if p.Overlaps(pods) {
			return fmt.Sprintf("it overlaps this node's pod CIDR %s", p)
		}
	}
	for _, l := range local {
		if pods.Overlaps(l.Prefix) && pods.Bits() <= l.Prefix.Bits() {
			return fmt.Sprintf("this node is itself on the network %s", l.Prefix.Masked())
		}
		if pods.Contains(l.Prefix.Addr()) {
			return fmt.Sprintf("it holds this node's address %s", l.Prefix.Addr())
		}
	}
	if !onLink(pods, local) {
		return ""
	}
	for _, r := range routers {
		if pods.Contains(r) {
			return fmt.Sprintf("it holds the router %s", r)
		}
	}
	for _, n := range all {
		for _, a := range n.Addresses {
			if pods.Contains(a) {
				return fmt.Sprintf("it holds node %s's address %s", n.Name, a)
			}
		}
	}
	return ""
}

// onLink tells whether pods are a part of a network that this node is on: what else is there must stay within reach. (Elsewhere no address
// counts: a Node that claims one could take another Node's route away.)
func onLink(pods netip.Prefix, local []rtnl.InterfaceAddress) bool {
	return slices.ContainsFunc(local, func(l rtnl.InterfaceAddress) bool { return l.Prefix.Overlaps(pods) })
}

// routers are the gateways of the default routes. To find them takes a list of all routes, so it is made only when they matter.
func routers(kernel *rtnl.Conn, own Node, all []Node, local []rtnl.InterfaceAddress) (found []netip.Addr, err error) {
	for _, n := range all {
		if n.Name == own.Name || !slices.ContainsFunc(n.PodCIDRs, func(pods netip.Prefix) bool { return onLink(pods, local) }) {
			continue
		}
		defaults, err := kernel.DefaultRoutes()
		for _, r := range defaults {
			found = append(found, r.Gateway)
		}
		return found, err
	}
	return nil, nil
}

// nextHop is the first address of a node, in the family of its pods, that is on link here, by the most specific network.
func nextHop(node Node, pods netip.Prefix, local []rtnl.InterfaceAddress) (netip.Addr, int) {
	for _, address := range node.Addresses {
		if address.Is4() != pods.Addr().Is4() || slices.ContainsFunc(local, func(l rtnl.InterfaceAddress) bool { return l.Prefix.Addr() == address }) {
			continue
		}
		bits, index := -1, 0
		for _, l := range local {
			if l.Prefix.Contains(address) && l.Prefix.Bits() > bits {
				bits, index = l.Prefix.Bits(), l.Index
			}
		}
		if index != 0 {
			return address, index
		}
	}
	return netip.Addr{}, 0
}

// difference compares the routes of our protocol that are there with the wanted ones.
func difference(have, wanted []rtnl.Route) (stale, missing []rtnl.Route) {
	due := make(map[rtnl.Route]bool, len(wanted)) // true until it is found
	for _, r := range wanted {
		due[r] = true
	}
	for _, r := range have {
		if _, ok := due[plain(r)]; ok {
			due[plain(r)] = false
		} else {
			stale = append(stale, r)
		}
	}
	for _, r := range wanted {
		if due[r] {
			missing = append(missing, r)
		}
	}
	return stale, missing
}

// plain is a route without what the kernel fills in.
func plain(r rtnl.Route) rtnl.Route {
	r.Scope = 0
	if r.Unreachable {
		r.Index = 0 // IPv6 says: by lo
	}
	return r
}

// syncRoutes makes the routes of our protocol exactly the wanted ones and tells how many it had to add and to delete. What is stale goes
// first: a node that got a new address has its route at the same place.
func syncRoutes(conn *rtnl.Conn, wanted []rtnl.Route) (added, deleted int, err error) {
	have, err := conn.Routes(Protocol)
	if err != nil {
		return 0, 0, err
	}
	stale, missing := difference(have, wanted)
	var errs []error
	for _, r := range stale {
		if err := conn.Must(rtnl.DeleteRoute(r)); err != nil && !rtnl.Gone(err) {
			errs = append(errs, err)
			continue
		}
		deleted++
	}
	for _, r := range missing {
		err := conn.Must(rtnl.AddRoute(r))
		switch {
		case err == nil:
			added++
		case rtnl.Exists(err):
			errs = append(errs, fmt.Errorf("add route %s: somebody else has one with the same metric %d (ip route show %s)", r.Dst, r.Priority, r.Dst))
		default:
			errs = append(errs, err)
		}
	}
	return added, deleted, errors.Join(errs...)
}
