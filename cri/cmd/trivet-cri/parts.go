package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"k8s.io/klog/v2"

	"github.com/trivet-node/trivet/cri/apparmor"
	"github.com/trivet-node/trivet/cri/bundle"
	"github.com/trivet-node/trivet/cri/config"
	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/daemonmetric"
	"github.com/trivet-node/trivet/cri/event"
	"github.com/trivet-node/trivet/cri/exit"
	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/network"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/cri/stats/layer"
	"github.com/trivet-node/trivet/cri/streaming"
	"github.com/trivet-node/trivet/internal/supervisor"
	"github.com/trivet-node/trivet/internal/trace"
)

// parts are the parts of the server, in the order in which they are opened: each may use those before it.
type parts struct {
	machine
	cfg     config.Config
	log     *slog.Logger
	metrics *daemonmetric.Set
	traces  *trace.Provider

	// supervisor hears when CRI is served, and whether it still is.
	supervisor supervisor.Supervisor

	monitor    *monitor.Client
	images     *image.Store
	roots      *rootfs.Store
	layers     *layer.Meter
	network    *network.Network
	events     event.Hub
	sandboxes  *sandbox.Service
	containers *container.Service
	exits      *exit.Router
	streams    *streaming.Server
}

func (p *parts) stateDir(name string) string { return filepath.Join(p.cfg.StateDir, name) }
func (p *parts) sandboxesDir() string        { return p.stateDir("sandboxes") }

// open takes over what an earlier server has left. The order is that of what each needs: the monitor knows
// what runs; containers use images, and are of sandboxes. close must be called even after an error.
func (p *parts) open(ctx context.Context) error {
	if err := os.MkdirAll(p.cfg.StateDir, 0o711); err != nil {
		return err
	}
	if err := p.connectMonitor(ctx); err != nil {
		return err
	}
	if err := p.openImages(); err != nil {
		return err
	}
	p.findUsers(ctx)
	if err := p.openSandboxes(ctx); err != nil {
		return err
	}
	if err := p.openContainers(ctx); err != nil {
		return err
	}

	// Only now is it known which layers are used, and which processes.
	if err := p.images.Collect(); err != nil {
		p.log.Warn("unneeded layers are not all deleted", "err", err)
	}
	if err := p.driver.ResetFailedScopes(ctx, p.exits.Knows); err != nil {
		p.log.Warn("failed scopes of containers that are gone are left", "err", err)
	}

	return p.openStreams()
}

// close closes what was opened. Containers go on.
func (p *parts) close() {
	if p.images != nil {
		p.images.Close()
	}
	if p.layers != nil {
		p.layers.Close()
	}
	if p.monitor != nil {
		p.monitor.Close()
	}
}

func (p *parts) connectMonitor(ctx context.Context) (err error) {
	p.monitor, err = monitor.Connect(ctx, monitor.Config{
		Socket:   p.cfg.Monitor.Socket,
		StateDir: p.stateDir("monitor"),
		Program:  p.monitorProgram,
		LogFile:  p.monitorLog(),
		Log:      p.log,
		Deleted:  p.driver.RemoveScope,
	})
	if err != nil {
		return fmt.Errorf("trivet-monitor: %w", err)
	}

	return nil
}

// monitorLog is the file of the monitor's own log; none where that can go where this process's does: into the
// journal, which outlives both.
func (p *parts) monitorLog() string {
	if supervisor.Journal(os.Stderr) {
		return ""
	}
	return p.stateDir("monitor.log")
}

func (p *parts) openImages() (err error) {
	p.images, err = image.Open(image.Config{
		Dir:      filepath.Join(p.cfg.RootDir, "images"),
		Registry: registry.NewClient(registry.Config{HostsDir: p.cfg.CertsDir, Received: p.metrics.Received}),
		Pinned:   p.cfg.PinnedImages,
		Log:      p.log,
	})
	if err != nil {
		return err
	}

	p.roots, err = rootfs.Open(rootfs.Config{
		Dir:      filepath.Join(p.cfg.RootDir, "rootfs"),
		StateDir: p.stateDir("rootfs"),

		MappedDir: p.stateDir("mapped"),

		Images: p.images,
		Log:    p.log,
	})
	if err != nil {
		return err
	}

	p.layers = layer.New(p.roots, p.log)
	return nil
}

func (p *parts) openSandboxes(ctx context.Context) (err error) {
	p.network = network.New(network.Config{
		ConfDir:  p.cfg.CNI.ConfDir,
		BinDirs:  p.cfg.CNI.BinDirs,
		CacheDir: p.cfg.CNI.CacheDir,
		PinDir:   "/run/netns",
		Log:      p.log,
	})

	// Half-made sandboxes are released from it while they are opened.
	p.network.Reload(ctx)

	p.sandboxes, err = sandbox.Open(ctx, sandbox.Config{
		Dir:         p.sandboxesDir(),
		FilesDir:    filepath.Join(p.cfg.RootDir, "sandboxes"),
		Network:     p.metrics.Network(p.network),
		Processes:   p.monitor,
		Kernel:      p.metrics.Kernel(sandbox.Linux{}),
		InitProgram: p.monitorProgram,
		Handlers:    p.handlers,
		Driver:      p.driver,
		OOMScoreMin: p.host.OOMScoreMin,
		Events:      &p.events,
		Log:         p.log,

		UnprivilegedPorts: p.cfg.UnprivilegedPorts,
		UnprivilegedICMP:  p.cfg.UnprivilegedICMP,
	})

	return err
}

func (p *parts) openContainers(ctx context.Context) (err error) {
	bundles := bundle.New(bundle.Config{
		SeccompDir: p.cfg.SeccompDir,
		Rootfs:     p.roots,
		Images:     p.images,
		AppArmor:   apparmor.New("/sys/kernel/security/apparmor", "apparmor_parser"),
		Host:       p.host,
		Driver:     p.driver,
		Log:        p.log,
	})

	p.containers, err = container.Open(ctx, container.Config{
		Dir:       p.stateDir("containers"),
		Sandboxes: p.sandboxes,
		Images:    p.images,
		Bundles:   p.metrics.Bundles(bundles),
		Processes: p.metrics.Processes(p.monitor),
		Inventory: p.monitor,
		Handlers:  p.handlers,
		Driver:    p.driver,
		Host:      p.host,
		Groups:    p.cgroups,
		Events:    &p.events,
		Log:       p.log,
	})
	if err != nil {
		return err
	}

	// Processes first: they hold the root file systems.
	p.exits = exit.New(exit.Config{
		Monitor:    p.monitor,
		Containers: p.containers,
		Sandboxes:  p.sandboxes,
		Log:        p.log,
	})

	p.exits.RemoveOrphans(ctx)
	p.containers.ReleaseOrphans(ctx)
	return nil
}

func (p *parts) openStreams() (err error) {
	// The library of streams logs what its callers do wrong by klog.
	klog.SetSlogLogger(p.log)
	p.streams, err = streaming.New(streaming.Config{
		Addr:       p.cfg.StreamAddr,
		Processes:  p.monitor,
		Containers: p.containers,
		Sandboxes:  p.sandboxes,
		Log:        p.log,
	})
	return err
}
