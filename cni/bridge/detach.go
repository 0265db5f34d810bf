package bridge

import (
	"errors"
	"os"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/netlink"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Detach removes an attachment's interface, and reports whether there was one: none is success, and so is a
// namespace that does not exist any more. With lazy set, the host's end is only cut off: the pair goes with
// the pod's namespace, or by Sweep if that takes too long.
func Detach(host *rtnl.Conn, network string, owner ipam.Owner, lazy bool) (there bool, err error) {
	name := HostName(network, owner)
	m := rtnl.DeleteLink(name)
	if lazy {
		m = rtnl.Discard(name, discardGroup)
	}
	err = host.Must(m)
	if netlink.IsNotExist(err) {
		return false, nil
	}
	return true, err
}

// DetachForeign removes the pod's interface from within its namespace, if upstream's plugin made it for
// this bridge: only that plugin knows the name of the host's end. Another network's interface of the same
// name stays, since the runtime calls DEL also after an ADD that failed because the name was taken. Without
// a bridge, "", it is upstream's ptp that made it.
func DetachForeign(host *rtnl.Conn, bridge, netns, ifname string) error {
	if _, err := os.Stat(netns); errors.Is(err, os.ErrNotExist) {
		return nil
	}

	// From within the pod the name is known; on the host only the index of the other end leads to it.
	return namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()

		link, err := pod.LinkByName(ifname)
		if netlink.IsNotExist(err) {
			return nil
		}
		if err != nil {
			return err
		}

		foreign, err := isForeign(host, link, bridge)
		if err != nil || !foreign {
			return err
		}

		return pod.EnsureNoLink(ifname)
	}, netns)
}

// isForeign reports whether upstream's bridge made a pod's interface, by its host's end: a port of this
// bridge without our alias. Without the bridge it may be anybody's, such as ptp's; it goes with its
// namespace.
func isForeign(host *rtnl.Conn, pod rtnl.Link, bridge string) (bool, error) {
	if pod.Kind != rtnl.KindVeth {
		return false, nil
	}

	peer, err := host.LinkByIndex(pod.Peer)
	if netlink.IsNotExist(err) {
		return false, nil
	}
	if err != nil || peer.Kind != rtnl.KindVeth || strings.HasPrefix(peer.Alias, aliasMark) {
		return false, err
	}

	if bridge == "" {
		return peer.Master == 0, nil
	}

	master, err := host.LinkByName(bridge)
	if netlink.IsNotExist(err) {
		return false, nil
	}

	return err == nil && peer.Master == master.Index, err
}

// Keep deletes the interfaces of a network whose owner, by its label, is not valid, and those that were cut
// off: CNI's GC.
func Keep(host *rtnl.Conn, network string, valid func(label string) bool) error {
	links, err := host.Links()
	if err != nil {
		return err
	}

	due := slices.DeleteFunc(links, func(l rtnl.Link) bool { return !isGarbage(l, network, valid) })
	return host.DeleteAll(due)
}

// Sweep deletes the interfaces of a network that were cut off and are in pending, by their index, and returns
// the others that were cut off, for the next call. A network namespace lives as long as any of its sockets: a
// TCP connection whose process has ended and whose other end does not answer keeps it, and with it the veth,
// for 100 s and longer.
func Sweep(host *rtnl.Conn, network string, pending map[int]bool) (next map[int]bool, err error) {
	links, err := host.Links()
	if err != nil {
		return pending, err
	}

	next = map[int]bool{}
	var due []rtnl.Link
	for _, l := range links {
		switch {
		case !isCutOff(l) || !strings.HasPrefix(l.Alias, aliasPrefix(network)):
		case pending[l.Index]:
			due = append(due, l)
		default:
			next[l.Index] = true
		}
	}

	return next, host.DeleteAll(due)
}

// isCutOff reports whether an interface waits to be deleted, by DEL or by GC.
func isCutOff(l rtnl.Link) bool { return l.Group == discardGroup || l.Group == rtnl.Condemned }

func isGarbage(l rtnl.Link, network string, valid func(label string) bool) bool {
	label, ours := strings.CutPrefix(l.Alias, aliasPrefix(network))
	return ours && (isCutOff(l) || !valid(label))
}
