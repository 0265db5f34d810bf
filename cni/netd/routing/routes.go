package routing

import (
	"errors"
	"fmt"

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
	// tunnelPriority is that of the routes through tunnels. An administrator who has set a route of any usual
	// metric to a node behind a router has a network that carries packets of pods: it wins.
	tunnelPriority = 1 << 20
	// unreachablePriority is that of the route which answers for own pod addresses that no pod has: any other
	// route wins.
	unreachablePriority = 1 << 30
)

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

// Sync makes the routes of our protocol exactly the wanted ones, and returns how many it has added and
// deleted. Stale ones go first: a node that got a new address has its route to the same destination.
func Sync(conn *rtnl.Conn, wanted []rtnl.Route) (added, deleted int, err error) {
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

// Findings says how the routes of our protocol differ from the wanted ones, and changes nothing.
func Findings(conn *rtnl.Conn, wanted []rtnl.Route) (found []string, err error) {
	have, err := conn.Routes(protocol)
	if err != nil {
		return nil, err
	}
	stale, missing := difference(have, wanted)
	for _, r := range missing {
		found = append(found, fmt.Sprintf("route to %s is missing", describe(r)))
	}
	for _, r := range stale {
		found = append(found, fmt.Sprintf("route to %s is not wanted", describe(r)))
	}
	return found, nil
}

func describe(r rtnl.Route) string {
	if r.Unreachable {
		return fmt.Sprintf("%s unreachable", r.Dst)
	}
	return fmt.Sprintf("%s via %s", r.Dst, r.Gateway)
}
