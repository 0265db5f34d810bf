package netd

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// Protocol marks the routes that trivet-netd made (ip route show proto 117). Others are never touched.
const Protocol = 117

const (
	// peerPriority is the metric of the routes to other nodes' pods. It is not the kernel's default, so that
	// a route which an administrator set (ip route add: 0 for IPv4, 1024 for IPv6) stands beside ours rather
	// than in its place.
	peerPriority = 117
	// unreachablePriority is that of the route which answers for own pod addresses that no pod has: any other
	// route wins.
	unreachablePriority = 1 << 30
)

// wantedRoutes are the routes to other nodes' pods through the nodes' addresses, as far as those are on a
// network that this node is on, and one that keeps packets to own pod addresses from leaving by the default
// route while the bridge is not there.
func wantedRoutes(
	own podcidr.Node, admitted []podcidr.Node, v vicinity,
) (routes []rtnl.Route, notes []string) {
	for _, pods := range own.PodCIDRs {
		routes = append(routes, rtnl.Route{
			Dst:         pods,
			Unreachable: true,
			Priority:    unreachablePriority,
			Protocol:    Protocol,
		})
	}

	for _, node := range admitted {
		if node.Name == own.Name {
			continue
		}

		for _, pods := range node.PodCIDRs {
			why := v.unfit(pods, own)
			gateway, index := v.nextHop(node, pods)
			if why == "" && index == 0 {
				const far = "none of its addresses %v is on a network of this node, and there is no overlay"
				why = fmt.Sprintf(far, node.Addresses)
			}

			if why != "" {
				notes = append(notes, fmt.Sprintf("node %s: no route to its pods %s: %s", node.Name, pods,
					why))
				continue
			}

			routes = append(routes, rtnl.Route{
				Dst:      pods,
				Gateway:  gateway,
				Index:    index,
				Priority: peerPriority,
				Protocol: Protocol,
			})
		}
	}

	return routes, notes
}

// vicinity is what this node is connected to.
type vicinity struct {
	networks  *podcidr.Index[int]    // the interface by network
	addresses *podcidr.Index[string] // of this node
	nodes     *podcidr.Index[string] // the Node by InternalIP
	routers   []netip.Addr           // gateways of the default routes, if they matter
}

func newVicinity(admitted []podcidr.Node, local []rtnl.InterfaceAddress) vicinity {
	v := vicinity{
		networks:  podcidr.NewIndex[int](admitted),
		addresses: podcidr.NewIndex[string](admitted),
		nodes:     podcidr.NewIndex[string](admitted),
	}

	for _, l := range local {
		v.networks.Add(l.Prefix, l.Index)
		v.addresses.Add(single(l.Prefix.Addr()), "")
	}

	for _, n := range admitted {
		for _, a := range n.Addresses {
			v.nodes.Add(single(a), n.Name)
		}
	}

	return v
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// unfit says why packets to pods may not be sent to another node: a wrong pod CIDR must not take over this
// node's own networks.
func (v vicinity) unfit(pods netip.Prefix, own podcidr.Node) string {
	for _, p := range own.PodCIDRs {
		if p.Overlaps(pods) {
			return fmt.Sprintf("it overlaps this node's pod CIDR %s", p)
		}
	}

	if network, _, ok := v.networks.Within(pods); ok {
		return fmt.Sprintf("this node is itself on the network %s", network)
	}
	if address, _, ok := v.addresses.Within(pods); ok {
		return fmt.Sprintf("it holds this node's address %s", address.Addr())
	}
	if !v.onLink(pods) {
		return ""
	}

	for _, r := range v.routers {
		if pods.Contains(r) {
			return fmt.Sprintf("it holds the router %s", r)
		}
	}

	if address, name, ok := v.nodes.Within(pods); ok {
		return fmt.Sprintf("it holds node %s's address %s", name, address.Addr())
	}

	return ""
}

// onLink reports whether pods are a part of a network that this node is on: what else is there must stay
// within reach.
func (v vicinity) onLink(pods netip.Prefix) bool {
	_, _, ok := v.networks.Around(pods)
	return ok
}

// findRouters looks for the gateways of the default routes. To find them takes a list of all routes, so it is
// made only when a pod CIDR may hold one.
func (v *vicinity) findRouters(kernel *rtnl.Conn, own podcidr.Node, admitted []podcidr.Node) error {
	near := slices.ContainsFunc(admitted, func(n podcidr.Node) bool {
		return n.Name != own.Name && slices.ContainsFunc(n.PodCIDRs, v.onLink)
	})
	if !near {
		return nil
	}
	defaults, err := kernel.DefaultRoutes()
	for _, r := range defaults {
		v.routers = append(v.routers, r.Gateway)
	}
	return err
}

// nextHop is the first address of a node, in the family of its pods, that is on link here, by the most
// specific network.
func (v vicinity) nextHop(node podcidr.Node, pods netip.Prefix) (netip.Addr, int) {
	for _, address := range node.Addresses {
		_, _, ours := v.addresses.Around(single(address))
		if ours || address.Is4() != pods.Addr().Is4() {
			continue
		}
		if _, index, ok := v.networks.Around(single(address)); ok {
			return address, index
		}
	}
	return netip.Addr{}, 0
}

// difference compares the routes of our protocol that are there with the wanted ones.
func difference(have, wanted []rtnl.Route) (stale, missing []rtnl.Route) {
	// true until it is found
	due := make(map[rtnl.Route]bool, len(wanted))
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
	r.Scope, r.Table = 0, 0
	if r.Unreachable {
		// IPv6 says: by lo
		r.Index = 0
	}
	return r
}

// syncRoutes makes the routes of our protocol exactly the wanted ones and tells how many it had to add and to
// delete. What is stale goes first: a node that got a new address has its route at the same place.
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
			errs = append(
				errs,
				fmt.Errorf("add route %s: somebody else has one with the same metric %d (ip route show %s)",
					r.Dst, r.Priority, r.Dst),
			)

		default:
			errs = append(errs, err)
		}
	}

	return added, deleted, errors.Join(errs...)
}
