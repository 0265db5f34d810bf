package network

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
)

// collectLimit bounds one call of the plugins in Collect: one that hangs must not keep the server from
// starting.
const collectLimit = 30 * time.Second

// Collect releases the pods that are gone from their networks, by the cached ADD, and lets the plugins that
// can (CNI 1.1) collect what is not in the cache. lives reports whether a sandbox exists. Other runtimes
// share the cache: a pod whose network namespace exists and is not below netnsDir is theirs, and lives.
// Collect is for the start, before pods are made: GC must not run beside an ADD (CNI specification, "GC"), of
// which the cache has nothing before it has succeeded. So where other runtimes have pods, or only a namespace
// for one, nothing is collected but by the cached ADD.
func (n *Network) Collect(ctx context.Context, lives func(id string) bool, netnsDir string) error {
	cached, err := n.cni.GetCachedAttachments("")
	if err != nil {
		return fmt.Errorf("cached networks: %w", err)
	}

	shared, err := n.hasOthers(netnsDir)
	errs := []error{err}
	valid := []types.GCAttachment{}
	for _, at := range cached {
		others := isOthers(at.NetNS, netnsDir)
		shared = shared || others
		if others || lives(at.ContainerID) {
			valid = append(valid, types.GCAttachment{ContainerID: at.ContainerID, IfName: at.IfName})
			continue
		}

		if err := n.collectOne(ctx, at); err != nil {
			errs = append(errs, err)
		}
	}

	if shared {
		n.cfg.Log.Info("another runtime has pods in the network: what is not in CNI's cache stays")
		return errors.Join(errs...)
	}
	return errors.Join(append(errs, n.collectUncached(ctx, valid))...)
}

// hasOthers reports whether there are network namespaces where runtimes pin those of their pods. If nobody
// knows, there are.
func (n *Network) hasOthers(netnsDir string) (bool, error) {
	if n.cfg.PinDir == "" {
		return false, nil
	}

	entries, err := os.ReadDir(n.cfg.PinDir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return true, fmt.Errorf("network namespaces of others: %w", err)
	}
	return slices.ContainsFunc(entries, func(e os.DirEntry) bool {
		return isOthers(filepath.Join(n.cfg.PinDir, e.Name()), netnsDir)
	}), nil
}

func (n *Network) collectOne(ctx context.Context, at *libcni.NetworkAttachment) error {
	ctx, cancel := context.WithTimeout(ctx, collectLimit)
	defer cancel()
	if err := n.release(ctx, at); err != nil {
		const format = "release pod sandbox %s, which is gone, from network %s: %w"
		return fmt.Errorf(format, at.ContainerID, at.Network, err)
	}
	return nil
}

// collectUncached has the plugins collect all but what is valid.
func (n *Network) collectUncached(ctx context.Context, valid []types.GCAttachment) error {
	list, _ := n.current()
	if list == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, collectLimit)
	defer cancel()
	if err := n.cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid}); err != nil {
		return fmt.Errorf("collect garbage of network %s: %w", list.Name, err)
	}
	return nil
}

// isOthers reports whether a network namespace exists, but not below dir.
func isOthers(netns, dir string) bool {
	return !strings.HasPrefix(netns, dir+"/") && existing(netns) != ""
}
