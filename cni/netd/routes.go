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

// unreachablePriority is the metric of the route that answers for own pod addresses that no pod has: any other route wins.
const unreachablePriority = 1 << 30

// wantedRoutes are the routes to other nodes' pods through the nodes' addresses, as far as those are on a network that this node is on,
// and one that keeps packets to own pod addresses from leaving by the default route while the bridge is not there.
func wantedRoutes(self string, all []Node, local []rtnl.InterfaceAddress) (routes []rtnl.Route, problems []string) {
	for _, node := range all {
		for _, pods := range node.PodCIDRs {
			if node.Name == self {
				routes = append(routes, rtnl.Route{Dst: pods, Unreachable: true, Priority: unreachablePriority, Protocol: Protocol})
				continue
			}
			gateway, index := nextHop(node, pods, local)
			if index == 0 {
				problems = append(problems, fmt.Sprintf("node %s: no route to its pods %s: none of its addresses %v is on a network of this node (there is no overlay)", node.Name, pods, node.Addresses))
				continue
			}
			routes = append(routes, rtnl.Route{Dst: pods, Gateway: gateway, Index: index, Protocol: Protocol})
		}
	}
	return routes, problems
}

// nextHop is the first address of a node, in the family of its pods, that is on link here.
func nextHop(node Node, pods netip.Prefix, local []rtnl.InterfaceAddress) (netip.Addr, int) {
	for _, address := range node.Addresses {
		if address.Is4() != pods.Addr().Is4() {
			continue
		}
		for _, l := range local {
			if l.Prefix.Contains(address) && l.Prefix.Addr() != address {
				return address, l.Index
			}
		}
	}
	return netip.Addr{}, 0
}

// comparable is a route without what the kernel fills in.
func comparable(r rtnl.Route) rtnl.Route {
	r.Scope = 0
	if r.Unreachable {
		r.Index = 0
	}
	if !r.Dst.Addr().Is4() && r.Priority == defaultV6Priority {
		r.Priority = 0
	}
	return r
}

// defaultV6Priority is the metric that the kernel gives IPv6 routes without one.
const defaultV6Priority = 1024

// syncRoutes makes the routes of our protocol exactly the wanted ones and tells how many it had to add and to delete.
func syncRoutes(conn *rtnl.Conn, wanted []rtnl.Route) (added, deleted int, err error) {
	have, err := conn.Routes(Protocol)
	if err != nil {
		return 0, 0, err
	}
	for i := range have {
		have[i] = comparable(have[i])
	}
	for _, r := range have {
		if slices.Contains(wanted, r) {
			continue
		}
		if e := conn.Must(rtnl.DeleteRoute(r)); e != nil && !rtnl.Gone(e) {
			err = errors.Join(err, e)
			continue
		}
		deleted++
	}
	for _, r := range wanted {
		if slices.Contains(have, r) {
			continue
		}
		if e := conn.Must(rtnl.NewRoute(r)); e != nil {
			err = errors.Join(err, e)
			continue
		}
		added++
	}
	return added, deleted, err
}
