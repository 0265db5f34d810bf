package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/bridge"
	"github.com/trivet-node/trivet/cni/conf"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
)

// namedPods is how many interfaces of pods a finding names.
const namedPods = 5

// Unguarded says which pods are not bound to their addresses, although the configuration wants all of them to
// be (sourceGuard): those that were added before it did, and those whose filter somebody has replaced.
func Unguarded(kernel *rtnl.Conn, n *conf.Network) ([]Finding, error) {
	if !n.SourceGuard {
		return nil, nil
	}

	links, err := kernel.Links()
	if err != nil {
		return nil, err
	}

	var free []string
	for _, l := range links {
		if !bridge.IsOwn(n.Bridge.Network, l) || l.Master == 0 {
			continue
		}

		program, err := kernel.ProgramOf(l.Index)
		switch {
		case netlink.IsNotExist(err):
			// The pod has gone meanwhile.
		case err != nil:
			return nil, err
		case program == nil:
			free = append(free, l.Name)
		}
	}

	if len(free) == 0 {
		return nil, nil
	}
	slices.Sort(free)
	return []Finding{{
		Level:  Note,
		Object: fmt.Sprintf("%d pods", len(free)),
		What:   "they can send from addresses of others, by " + enumerate(free),
		Do:     "make these pods again: they are older than sourceGuard, or their filter was replaced",
	}}, nil
}

// enumerate names the first of many.
func enumerate(names []string) string {
	if more := len(names) - namedPods; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namedPods], ", "), more)
	}
	return strings.Join(names, ", ")
}
