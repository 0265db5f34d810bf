package hold

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/trivet-node/trivet/cni/conntrack"
	"github.com/trivet-node/trivet/cni/netlink"
)

// What is established passes the rules, and connection tracking does not know that the address of a pod has
// become another one's. So addresses of pods that end are put down, and their connections are deleted before
// another pod has them. That takes a walk over all that is tracked, some 10 ms: trivet-netd makes it for many
// addresses at once, and the plugin where an address comes back sooner.

// ended is the directory of the addresses that were a pod's, each of them an empty file.
type ended string

func (n Network) ended() ended { return ended(n.dir("ended")) }

func (e ended) file(a netip.Addr) string { return filepath.Join(string(e), a.String()) }

// leave puts down that connections of addresses may be left. The pod has gone, and its addresses are reserved
// yet.
func (n Network) leave(addresses []netip.Addr) error {
	// Nobody would clear them.
	if !n.Known() {
		return nil
	}
	err := n.ended().add(addresses)
	if err == nil {
		return nil
	}

	// Pods end on a full disk, too.
	if err := forgetConnections(addresses); err != nil {
		return fmt.Errorf("addresses %v cannot be used again: %w", addresses, err)
	}
	return nil
}

// takeOver makes addresses of former pods a new pod's. Without policies all was allowed.
func (n Network) takeOver(addresses []netip.Addr) error {
	again := slices.DeleteFunc(slices.Clone(addresses), func(a netip.Addr) bool {
		_, err := os.Lstat(n.ended().file(a))
		return errors.Is(err, os.ErrNotExist)
	})
	if len(again) == 0 {
		return nil
	}

	namespaces, err := os.ReadDir(n.dir(namespacesDir))
	if err != nil || len(namespaces) > 0 {
		if err := forgetConnections(again); err != nil {
			return err
		}
	}
	return n.ended().remove(again)
}

// Clear deletes the connections of pods that have ended, where no pod has their addresses again.
func (n Network) Clear() error {
	before := n.ended().list()
	if len(before) == 0 {
		return nil
	}

	conn, err := netlink.Open(netlink.Netfilter)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	found, err := conntrack.Of(conn, slices.Collect(maps.Keys(before)))
	if err != nil {
		return fmt.Errorf("look for connections of pods that have ended: %w", err)
	}

	// The walk was without the lock: a pod that has begun meanwhile has taken the file away, and what was
	// found may be its own.
	return n.Pool.Locked(func() error {
		now := n.ended().list()
		maps.DeleteFunc(before, func(a netip.Addr, file os.FileInfo) bool {
			return now[a] == nil || !os.SameFile(file, now[a]) || !file.ModTime().Equal(now[a].ModTime())
		})
		found := slices.DeleteFunc(found, func(c conntrack.Connection) bool {
			return before[c.Source] == nil && before[c.Answering] == nil
		})
		if err := conntrack.Delete(conn, found); err != nil {
			return fmt.Errorf("forget connections of pods that have ended: %w", err)
		}
		return n.ended().remove(slices.Collect(maps.Keys(before)))
	})
}

func (e ended) add(addresses []netip.Addr) error {
	if err := os.MkdirAll(string(e), 0o755); err != nil {
		return err
	}
	for _, a := range addresses {
		if err := os.WriteFile(e.file(a), nil, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// list returns the addresses with their files.
func (e ended) list() map[netip.Addr]os.FileInfo {
	entries, _ := os.ReadDir(string(e))
	all := map[netip.Addr]os.FileInfo{}
	for _, entry := range entries {
		a, err := netip.ParseAddr(entry.Name())
		if err != nil {
			continue
		}
		if file, err := entry.Info(); err == nil {
			all[a] = file
		}
	}
	return all
}

func (e ended) remove(addresses []netip.Addr) error {
	var errs []error
	for _, a := range addresses {
		if err := os.Remove(e.file(a)); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// forgetConnections deletes the tracked connections of addresses.
func forgetConnections(addresses []netip.Addr) error {
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
