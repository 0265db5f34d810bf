package bridge

import (
	"errors"
	"os"
	"strings"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/namespace"
)

// Detach removes an attachment's interface and reports whether there was one: none is success, and so is a
// namespace that is gone. With lazy set, the host's end is only cut off: the pair dies with the pod's
// namespace.
func Detach(host *rtnl.Conn, network string, owner ipam.Owner, lazy bool) (there bool, err error) {
	name := HostName(network, owner)
	m := rtnl.DeleteLink(name)
	if lazy {
		m = rtnl.Discard(name, DiscardGroup)
	}
	err = host.Must(m)
	if rtnl.Gone(err) {
		return false, nil
	}
	return true, err
}

// DetachForeign removes the pod's interface from within its namespace, if it was made by upstream's plugin
// for this bridge: its host's end has a name that only that plugin knows. Another network's interface of the
// same name stays, for the runtime calls DEL also after an ADD that failed because the name was taken.
func DetachForeign(host *rtnl.Conn, bridge, netns, ifname string) error {
	if _, err := os.Stat(netns); errors.Is(err, os.ErrNotExist) {
		return nil
	}

	return namespace.Visit(func() error {
		pod, err := rtnl.Open()
		if err != nil {
			return err
		}
		defer func() { _ = pod.Close() }()

		link, err := pod.LinkByName(ifname)
		if err == nil {
			var foreign bool
			if foreign, err = isForeign(host, link, bridge); err == nil && foreign {
				return pod.DeleteIfThere(ifname)
			}
		}

		if rtnl.Gone(err) {
			return nil
		}

		return err
	}, netns)
}

// isForeign looks at the host's end of a pod's interface.
func isForeign(host *rtnl.Conn, pod rtnl.Link, bridge string) (bool, error) {
	if pod.Kind != "veth" {
		return false, nil
	}

	peer, err := host.LinkByIndex(pod.Peer)
	if rtnl.Gone(err) {
		return false, nil
	}
	if err != nil || peer.Kind != "veth" || strings.HasPrefix(peer.Alias, "cni:") {
		return false, err
	}

	master, err := host.LinkByName(bridge)
	if rtnl.Gone(err) {
		// without its bridge it may be anybody's, such as ptp's; it goes with the namespace
		return false, nil
	}

	return peer.Master == master.Index, err
}

// Keep deletes the interfaces of a network whose owner, by its label, is not valid, and those cut off
// earlier: CNI's GC.
func Keep(host *rtnl.Conn, network string, valid func(label string) bool) error {
	links, err := host.Links()
	if err != nil {
		return err
	}

	prefix := aliasPrefix(network)
	for _, l := range links {
		label, ours := strings.CutPrefix(l.Alias, prefix)
		if !ours {
			continue
		}
		if l.Group == DiscardGroup || !valid(label) {
			err = errors.Join(err, host.DeleteIfThere(l.Name))
		}
	}

	return err
}
