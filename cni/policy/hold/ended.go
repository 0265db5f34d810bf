package hold

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/netlink"
)

// What is established passes the rules, and connection tracking does not know that the address of a pod has
// become another one's. So addresses of pods that end are put down, and their connections are deleted before
// another pod has them. That takes a walk over all that is tracked, some 10 ms: trivet-netd makes it for many
// addresses at once, and the plugin where an address comes back sooner.

const endedDir = "ended"

// leave puts down that connections of addresses may be left. The pod has gone, and its addresses are reserved
// yet.
func (n Network) leave(addresses []netip.Addr) error {
	// Nobody would clear them.
	if !n.Known() {
		return nil
	}

	err := os.MkdirAll(n.dir(endedDir), 0o755)
	for _, a := range addresses {
		if err == nil {
			err = os.WriteFile(n.dir(endedDir, a.String()), nil, 0o644)
		}
	}
	if err == nil {
		return nil
	}

	// Pods end on a full disk, too.
	if err := n.forgetConnections(addresses); err != nil {
		return fmt.Errorf("addresses %v cannot be used again: %w", addresses, err)
	}
	return nil
}

// takeOver makes addresses of former pods a new pod's. Without policies all was allowed.
func (n Network) takeOver(addresses []netip.Addr) error {
	var again []netip.Addr
	for _, a := range addresses {
		if _, err := os.Lstat(n.dir(endedDir, a.String())); !errors.Is(err, os.ErrNotExist) {
			again = append(again, a)
		}
	}
	if len(again) == 0 {
		return nil
	}

	if n.anyPolicies() {
		if err := n.forgetConnections(again); err != nil {
			return err
		}
	}
	return n.removeLeft(again)
}

// Clear deletes the connections of pods that have ended, where no pod has their addresses again.
func (n Network) Clear() error {
	before := n.left()
	if len(before) == 0 {
		return nil
	}

	var addresses []netip.Addr
	for a := range before {
		addresses = append(addresses, a)
	}
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	found, err := conntrack.Of(conn, addresses)
	if err != nil {
		return fmt.Errorf("look for connections of pods that have ended: %w", err)
	}

	// The walk was without the lock: a pod that has begun meanwhile has taken the file away, and what was
	// found is not its own.
	return n.Pool.Locked(func() error {
		now := n.left()
		gone := map[netip.Addr]bool{}
		var same []netip.Addr
		for a, file := range before {
			if now[a] != nil && os.SameFile(file, now[a]) && file.ModTime().Equal(now[a].ModTime()) {
				gone[a] = true
				same = append(same, a)
			}
		}

		var ended []conntrack.Connection
		for _, c := range found {
			if c.IsOf(gone) {
				ended = append(ended, c)
			}
		}
		if err := conntrack.Delete(conn, ended); err != nil {
			return fmt.Errorf("forget connections of pods that have ended: %w", err)
		}
		return n.removeLeft(same)
	})
}

// left are the addresses of pods that have ended, with their files.
func (n Network) left() map[netip.Addr]os.FileInfo {
	entries, _ := os.ReadDir(n.dir(endedDir))
	left := map[netip.Addr]os.FileInfo{}
	for _, e := range entries {
		a, err := netip.ParseAddr(e.Name())
		if err != nil {
			continue
		}
		if file, err := e.Info(); err == nil {
			left[a] = file
		}
	}
	return left
}

func (n Network) removeLeft(addresses []netip.Addr) error {
	var errs []error
	for _, a := range addresses {
		if err := os.Remove(n.dir(endedDir, a.String())); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// anyPolicies reports whether some namespace has policies.
func (n Network) anyPolicies() bool {
	entries, err := os.ReadDir(n.dir(namespacesDir))
	return len(entries) > 0 || err != nil && !errors.Is(err, os.ErrNotExist)
}

// forgetConnections deletes the tracked connections of addresses.
func (n Network) forgetConnections(addresses []netip.Addr) error {
	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()

	found, err := conntrack.Of(conn, addresses)
	if err == nil {
		err = conntrack.Delete(conn, found)
	}
	if err != nil {
		return fmt.Errorf("forget connections of the pods that had the addresses %v: %w", addresses, err)
	}
	return nil
}
