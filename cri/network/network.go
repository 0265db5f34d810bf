// Package network joins pod sandboxes to the pod network through CNI plugins (CNI 1.1), which libcni runs as
// for any runtime. libcni keeps the result of each ADD in its cache (/var/lib/cni), from which a DEL works
// though the conflist has changed or is gone.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/trivet-node/trivet/internal/inotify"
)

// interfaceName is the name of the pod's interface.
const interfaceName = "eth0"

// Config says where CNI is.
type Config struct {
	// ConfDir is the directory of conflists. The first file by name that can be read is used.
	ConfDir string

	// BinDirs are the directories of plugins.
	BinDirs []string

	// CacheDir is the directory of libcni's cache.
	CacheDir string

	// PinDir is where other runtimes pin the network namespaces of their pods; empty: there are none.
	PinDir string

	Log *slog.Logger
}

// Network runs the plugins of the default network. It may be used by many goroutines.
type Network struct {
	cfg Config
	cni *libcni.CNIConfig

	mu sync.RWMutex // guards all below

	// list is the present configuration; nil if there is none.
	list *libcni.NetworkConfigList

	// notReady says why pods cannot be joined; nil if they can.
	notReady error
}

// ErrNotReady is a network without a usable CNI configuration.
var ErrNotReady = errors.New("network is not ready")

// New returns a Network that is not ready. Run watches the configuration, Reload reads it once.
func New(cfg Config) *Network {
	return &Network{
		cfg:      cfg,
		cni:      libcni.NewCNIConfigWithCacheDir(cfg.BinDirs, cfg.CacheDir, &tracedExec{}),
		notReady: ErrNotReady,
	}
}

// Run follows the configuration directory until ctx ends.
func (n *Network) Run(ctx context.Context) error {
	if err := os.MkdirAll(n.cfg.ConfDir, 0o755); err != nil {
		return fmt.Errorf("cni configuration directory: %w", err)
	}

	watcher, err := inotify.Open(ctx, n.cfg.Log, func() { n.Reload(ctx) })
	if err != nil && ctx.Err() != nil {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch %s: %w", n.cfg.ConfDir, err)
	}
	defer watcher.Close()

	if err := watcher.Add(n.cfg.ConfDir); err != nil {
		return fmt.Errorf("watch %s: %w", n.cfg.ConfDir, err)
	}

	// Once more, for what has changed before the watch began.
	n.Reload(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-watcher.Events:
			n.Reload(ctx)
		case err := <-watcher.Errors:
			n.cfg.Log.Warn("cni configuration is not watched fully", "err", err)
		}
	}
}

// Reload reads the configuration and asks its plugins for their STATUS.
func (n *Network) Reload(ctx context.Context) {
	list, err := load(n.cfg.ConfDir)
	if err == nil {
		err = n.status(ctx, list)
	}

	n.mu.Lock()
	changed := (n.notReady == nil) != (err == nil)
	n.list = list
	n.notReady = err
	n.mu.Unlock()

	if changed && err == nil {
		n.cfg.Log.Info("network is ready", "network", list.Name)
	} else if changed {
		n.cfg.Log.Warn("network is not ready", "err", err)
	}
}

// statusLimit bounds what all plugins together take to answer STATUS.
const statusLimit = 10 * time.Second

func (n *Network) status(ctx context.Context, list *libcni.NetworkConfigList) error {
	ctx, cancel := context.WithTimeout(ctx, statusLimit)
	defer cancel()
	if _, err := n.cni.ValidateNetworkList(ctx, list); err != nil {
		return fmt.Errorf("cni network %s: %w", list.Name, err)
	}
	if err := n.cni.GetStatusNetworkList(ctx, list); err != nil {
		return fmt.Errorf("cni network %s: status: %w", list.Name, err)
	}
	return nil
}

// Ready returns nil if pods can be joined, else why not. The plugins of a network that was not ready are
// asked again: they may have become ready without any change of a file.
func (n *Network) Ready(ctx context.Context) error {
	list, notReady := n.current()
	if notReady != nil && list != nil {
		n.Reload(ctx)
		_, notReady = n.current()
	}
	return notReady
}

func (n *Network) current() (list *libcni.NetworkConfigList, notReady error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.list, n.notReady
}

// load returns the first configuration by name that can be read, as all runtimes do.
func load(dir string) (*libcni.NetworkConfigList, error) {
	files, err := libcni.ConfFiles(dir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		return nil, fmt.Errorf("cni configuration in %s: %w", dir, err)
	}

	slices.Sort(files)
	errs := []error{fmt.Errorf("%w: no cni configuration in %s", ErrNotReady, dir)}
	for _, file := range files {
		list, err := libcni.NetworkConfFromFile(file)
		if err == nil {
			return list, nil
		}

		errs = append(errs, fmt.Errorf("%s: %w", filepath.Base(file), err))
	}

	return nil, errors.Join(errs...)
}
