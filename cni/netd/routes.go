package netd

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// protocol marks the routes that trivet-netd made (ip route show proto 117). Others are never touched.
const protocol = 117

const (
	// peerPriority is the metric of the routes to other nodes' pods. It is not the kernel's default, so that
	// a route which an administrator set (ip route add: 0 for IPv4, 1024 for IPv6) stands beside ours rather
	// than in its place.
	peerPriority = 117
	// unreachablePriority is that of the route which answers for own pod addresses that no pod has: any other
	// route wins.
	unreachablePriority = 1 << 30
)

// wantedRoutes returns the routes to other nodes' pods through the nodes' addresses, as far as those are on a
// network that this node is on, and one that keeps packets to own pod addresses from leaving by the default
// route while there is no bridge. notes say why there is no route.
func wantedRoutes(
	own podcidr.Node, admitted []podcidr.Node, v vicinity,
) (routes []rtnl.Route, notes []string) {
	for _, pods := range own.PodCIDRs {
		routes = append(routes, rtnl.Route{
			Dst:         pods,
			Unreachable: true,
			Priority:    unreachablePriority,
			Protocol:    protocol,
		})
	}

	// A node that is out of reach gets a note, and the others their routes.
	for _, node := range admitted {
		if node.Name == own.Name {
			continue
		}

		for _, pods := range node.PodCIDRs {
			route, err := v.routeTo(node, pods, own)
			if err != nil {
				const format = "node %s: no route to its pods %s: %s"
				notes = append(notes, fmt.Sprintf(format, node.Name, pods, err))
				continue
			}

			routes = append(routes, route)
		}
	}

	return routes, notes
}

// routeTo returns the route to pods of another node.
func (v vicinity) routeTo(node podcidr.Node, pods netip.Prefix, own podcidr.Node) (rtnl.Route, error) {
	if err := v.refuse(pods, own); err != nil {
		return rtnl.Route{}, err
	}

	gateway, index := v.nextHop(node, pods)
	if index == 0 {
		const format = "none of its addresses %v is on a network of this node, and there is no overlay"
		return rtnl.Route{}, fmt.Errorf(format, node.Addresses)
	}

	return rtnl.Route{
		Dst:      pods,
		Gateway:  gateway,
		Index:    index,
		Priority: peerPriority,
		Protocol: protocol,
	}, nil
}

// difference compares the routes of our protocol that are there with the wanted ones.
func difference(have, wanted []rtnl.Route) (stale, missing []rtnl.Route) {
	isWanted := make(map[rtnl.Route]bool, len(wanted))
	for _, r := range wanted {
		isWanted[r] = true
	}

	isThere := make(map[rtnl.Route]bool, len(have))
	for _, r := range have {
		asMade := withoutKernels(r)
		isThere[asMade] = true
		if !isWanted[asMade] {
			stale = append(stale, r)
		}
	}

	for _, r := range wanted {
		if !isThere[r] {
			missing = append(missing, r)
		}
	}

	return stale, missing
}

// withoutKernels returns a route without what the kernel has added to it.
func withoutKernels(r rtnl.Route) rtnl.Route {
	r.Scope = 0
	r.Table = 0
	// IPv6 shows unreachable routes with the interface lo.
	if r.Unreachable {
		r.Index = 0
	}
	return r
}

// syncRoutes makes the routes of our protocol exactly the wanted ones, and returns how many it has added and
// deleted. Stale ones go first: a node that got a new address has its route to the same destination.
func syncRoutes(conn *rtnl.Conn, wanted []rtnl.Route) (added, deleted int, err error) {
	have, err := conn.Routes(protocol)
	if err != nil {
		return 0, 0, err
	}

	stale, missing := difference(have, wanted)

	// One route that cannot be set must not keep the others from being set.
	var errs []error
	for _, r := range stale {
		if err := conn.Must(rtnl.DeleteRoute(r)); err != nil && !netlink.IsNotExist(err) {
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
		case netlink.IsExist(err):
			const format = "add route %s: somebody else has one with the same metric %d (ip route show %[1]s)"
			errs = append(errs, fmt.Errorf(format, r.Dst, r.Priority))
		default:
			errs = append(errs, err)
		}
	}

	return added, deleted, errors.Join(errs...)
}
