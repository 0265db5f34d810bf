// Package netd is the network daemon of a node. It watches the cluster's Nodes and keeps two things on this
// node as they should be: the network configuration for the container runtime, made from the node's own pod
// CIDRs, and a route to every other node's pods. Beside it, package enforcer keeps network policies in force.
//
// It is level-triggered: whatever happens (a Node changes, somebody deletes a route, a link goes down) leads
// to the same pass over all Nodes and all routes. kill -9 at any point costs nothing: configuration and
// routes stay, and the next start compares again.
package netd

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/netd/cluster"
	"github.com/trivet-node/trivet/cni/netd/enforcer"
	"github.com/trivet-node/trivet/cni/netd/overlay"
	"github.com/trivet-node/trivet/cni/netd/routing"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/cni/sourceguard"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/retry"
)

// Config says what to watch and where to write.
type Config struct {
	// NodeName is the name of this node's Node.
	NodeName string
	// ConfDir is where the runtime looks for network configurations: /etc/cni/net.d.
	ConfDir string
	// ConfName is the name of the file there: 10-trivet.conflist.
	ConfName string
	// Network and Bridge are the names of the pods' network and of its bridge. A node whose pods are on a
	// bridge of another plugin keeps them, their addresses too, when these are its names.
	Network string
	Bridge  string

	// Plugin is the path of trivet-cni as the runtime sees it.
	Plugin string
	// ClusterCIDRs are the pod networks of the whole cluster; none means that they are not known.
	ClusterCIDRs []netip.Prefix
	// ServiceCIDRs are networks of Services beside the ServiceCIDRs of the API.
	ServiceCIDRs []netip.Prefix
	// Overlay says which nodes are reached through tunnels, and OverlayPort is the tunnels' UDP port.
	Overlay     routing.Mode
	OverlayPort uint16
	// SourceGuard has pods bound to their MAC and IP addresses, where the kernel can.
	SourceGuard bool
	// Policies has network policies enforced, and Enforced is told about each pass over them. It may be nil.
	Policies bool
	Enforced func(enforcer.Report)
	// Passed is told about each pass. It may be nil.
	Passed func(Report)
}

func (c Config) confPath() string { return filepath.Join(c.ConfDir, c.ConfName) }

func (c Config) overlay() overlay.Overlay {
	return overlay.Overlay{Network: c.Network, Bridge: c.Bridge, Port: c.OverlayPort}
}

// recheck is how often a pass is made without any event: a configuration file that somebody removed gives
// none.
const recheck = time.Minute

// Between two passes are at least minPause and pauseShare times what the last one took, up to maxPause: the
// veths of a hundred pods that start are a few events, not a hundred. The first event after that time is
// followed at once.
const (
	minPause   = 50 * time.Millisecond
	maxPause   = time.Second
	pauseShare = 20
)

// firstRetry is when the next attempt follows a failure at the latest. It doubles with each one, up to
// lastRetry.
const (
	firstRetry = time.Second
	lastRetry  = 30 * time.Second
)

// Daemon keeps one node's network.
type Daemon struct {
	cfg     Config
	log     *slog.Logger
	cluster *cluster.Cluster
	kernel  *rtnl.Conn
	// enforcer keeps network policies in force; nil if that is not wanted.
	enforcer *enforcer.Enforcer
	// wake holds one request for a pass.
	wake    chan struct{}
	backoff retry.Backoff
	// logged are the errors and notes of the last pass: each is logged once while it lasts.
	logged map[string]bool
	// noSourceGuard is why the kernel has none; nil if it has, or if none is wanted.
	noSourceGuard error
	// rules says whether the network's rules were there once, and when writing them failed last, and why.
	rules struct {
		seen     bool
		failedAt time.Time
		err      error
	}

	// mu guards report.
	mu     sync.Mutex
	report Report
}

// New returns a daemon; api says where the API server is. It starts nothing.
func New(api kube.Config, cfg Config, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{
		cfg:     cfg,
		log:     log,
		wake:    make(chan struct{}, 1),
		backoff: retry.Backoff{First: firstRetry, Max: lastRetry},
		report:  Report{At: time.Now(), Errors: []string{"no pass was made yet"}},
	}
	var err error
	if d.cluster, err = cluster.New(api, d.requestPass, log); err != nil {
		return nil, err
	}
	d.enforcer, err = d.newEnforcer()
	return d, err
}

// Run watches and repairs until ctx ends. It returns when everything that it started has ended.
func (d *Daemon) Run(ctx context.Context) (err error) {
	if d.kernel, err = rtnl.Open(); err != nil {
		return err
	}
	defer func() { _ = d.kernel.Close() }()

	if err := d.prepare(); err != nil {
		return err
	}

	// A watch that ends is the end of the daemon: without events, it would repair once a minute. Without the
	// sweep, veths would pile up.
	var running sync.WaitGroup
	defer running.Wait()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	watchEnded := make(chan error, 6)
	running.Go(func() { watchEnded <- rtnl.Watch(ctx, d.requestPass) })
	running.Go(func() { watchEnded <- hostnat.Watch(ctx, d.cfg.Network, d.requestPass) })
	running.Go(func() { watchEnded <- overlay.Watch(ctx, d.requestPass) })
	running.Go(func() { watchEnded <- d.cfg.overlay().WatchGuard(ctx, d.requestPass) })
	running.Go(func() { watchEnded <- d.sweep(ctx) })
	running.Go(func() { d.cluster.Run(ctx) })
	if d.enforcer != nil {
		running.Go(func() { watchEnded <- d.enforcer.Run(ctx) })
	}

	for {
		next := time.NewTimer(d.pass(ctx))
		// The next pass is due after that time, or at the first event after the pause.
		pause := min(max(minPause, pauseShare*d.Report().Took), maxPause)
		if retry.Sleep(ctx, pause) != nil {
			return nil
		}

		select {
		case <-ctx.Done():
			return nil
		case err := <-watchEnded:
			return err
		case <-d.wake:
		case <-next.C:
		}

		next.Stop()
	}
}

// prepare removes what an earlier run has left that this one does not want, and tries what the kernel can do.
func (d *Daemon) prepare() error {
	if err := durable.Sweep(d.cfg.confPath()); err != nil {
		d.log.Warn("unfinished files of an earlier run stay", "dir", d.cfg.ConfDir, "err", err)
	}

	if len(d.cfg.ClusterCIDRs) == 0 {
		d.log.Warn("--cluster-cidr is not given: a Node may claim any private network " +
			"that is about as large as this node's pod CIDR")
	}

	if d.cfg.SourceGuard {
		d.noSourceGuard = sourceguard.Try()
	}
	if d.enforcer == nil {
		return removePolicies(d.cfg)
	}
	return nil
}

// requestPass asks for a pass and does not wait; several requests at once are one.
func (d *Daemon) requestPass() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// pass compares and repairs once, logs what has changed, and returns after how long the next pass follows
// without any event.
func (d *Daemon) pass(ctx context.Context) time.Duration {
	r := Report{At: time.Now()}
	waiting := d.cluster.Waiting()
	if waiting == nil {
		d.reconcile(ctx, &r)
	} else {
		// Nothing is withdrawn on half a list.
		r.fail(waiting)
	}

	// What failed because the daemon ends is not worth a report.
	if ctx.Err() != nil {
		return 0
	}

	r.Took = time.Since(r.At)
	// Every start begins without lists.
	if !errors.Is(waiting, cluster.ErrNoListYet) && !d.policiesStart() {
		d.logChanges(r)
	}

	d.mu.Lock()
	d.report = r
	d.mu.Unlock()

	if d.cfg.Passed != nil {
		d.cfg.Passed(r)
	}
	if len(r.Errors) > 0 {
		return d.backoff.Next()
	}

	d.backoff.Reset()
	return recheck
}

// Report returns what the last pass found.
func (d *Daemon) Report() Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report
}

// Cleanup removes what the daemon made: its routes, its tunnels and the configuration file.
func Cleanup(cfg Config) error {
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()

	_, _, err = routing.Sync(kernel, nil)
	err = errors.Join(err, cfg.overlay().Remove(kernel), removePolicies(cfg))
	if e := os.Remove(cfg.confPath()); !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, durable.Sweep(cfg.confPath()))
}
