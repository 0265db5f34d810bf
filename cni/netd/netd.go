// Package netd is the network daemon of a node. It watches the cluster's Nodes and keeps two things on this node as they have to be: the
// network configuration for the container runtime, made from the node's own pod CIDRs, and a route to every other node's pods.
//
// It is level-triggered: whatever happens (a Node changes, somebody deletes a route, a link goes down) leads to the same look at all
// Nodes and all routes. kill -9 at any point costs nothing: configuration and routes stay, the next start compares again.
package netd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/cni/rtnl"
)

// Options say what to watch and where to write.
type Options struct {
	NodeName     string
	ConfDir      string // /etc/cni/net.d
	ConfName     string // 10-trivet.conflist
	Plugin       string // path of trivet-cni as the runtime sees it
	ClusterCIDRs []netip.Prefix
}

const (
	// recheck finds what gave no event: a configuration file that somebody removed.
	recheck = time.Minute
	// retry is how long after a failure the next attempt follows.
	retry = 2 * time.Second
)

// Daemon is the running state.
type Daemon struct {
	options Options
	log     *slog.Logger
	kernel  *rtnl.Conn
	nodes   *nodes
	dirty   chan struct{}

	mu     sync.Mutex
	reason error // why the last pass did not reach its aim; nil: all is as it has to be
	told   string
}

// errWaiting is the reason before the first pass.
var errWaiting = errors.New("waiting for the API server")

// Run watches and repairs until ctx ends.
func Run(ctx context.Context, config *rest.Config, o Options, log *slog.Logger, serve func(health func() error)) error {
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	d := &Daemon{options: o, log: log, kernel: kernel, dirty: make(chan struct{}, 1), reason: errWaiting}
	if d.nodes, err = watchNodes(ctx, config, d.look); err != nil {
		return err
	}
	serve(d.Health)
	watched := make(chan error, 1)
	go func() { watched <- rtnl.Watch(ctx, d.look) }()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-watched:
			if ctx.Err() != nil {
				return nil
			}
			return err
		case <-d.dirty:
		case <-timer.C:
		}
		timer.Reset(d.pass(ctx))
	}
}

// look asks for a pass; many requests at once are one.
func (d *Daemon) look() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// Health is nil when configuration and routes were right at the last pass.
func (d *Daemon) Health() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reason
}

// pass compares and repairs, and says after how long to look again unasked.
func (d *Daemon) pass(ctx context.Context) time.Duration {
	if !d.nodes.synced() {
		return retry // nothing is withdrawn on half a list
	}
	err := d.reconcile(ctx)
	d.mu.Lock()
	d.reason = err
	d.mu.Unlock()
	// The same reason again and again is told once.
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != d.told {
		d.told = text
		if err != nil {
			d.log.Warn("network is not as it has to be", "node", d.options.NodeName, "err", err)
		} else {
			d.log.Info("network is as it has to be", "node", d.options.NodeName)
		}
	}
	if err != nil {
		return retry
	}
	return recheck
}

func (d *Daemon) reconcile(ctx context.Context) error {
	all, problems := d.nodes.list()
	at := slices.IndexFunc(all, func(n Node) bool { return n.Name == d.options.NodeName })
	switch {
	case at < 0:
		return fmt.Errorf("node %s is not in the cluster yet", d.options.NodeName)
	case len(all[at].PodCIDRs) == 0:
		return fmt.Errorf("node %s has no pod CIDR yet (the controller manager gives it out: --allocate-node-cidrs, --cluster-cidr)", d.options.NodeName)
	}
	own := all[at]
	err := forward(own.PodCIDRs)
	local, localErr := d.kernel.AllAddresses()
	if localErr != nil {
		return errors.Join(err, localErr)
	}
	wanted, unroutable := wantedRoutes(own.Name, all, local)
	added, deleted, routeErr := syncRoutes(d.kernel, wanted)
	if added+deleted > 0 {
		d.log.Info("routes changed", "added", added, "deleted", deleted, "nodes", len(all))
	}
	err = errors.Join(err, routeErr, d.configure(ctx, own, all, local))
	for _, p := range append(problems, unroutable...) {
		err = errors.Join(err, errors.New(p))
	}
	return err
}

func (d *Daemon) configure(ctx context.Context, own Node, all []Node, local []rtnl.InterfaceAddress) error {
	mtu, err := d.mtu(own, local)
	if err != nil {
		return err
	}
	data, err := networkConfig(own.PodCIDRs, podNetworks(d.options.ClusterCIDRs, all), mtu)
	if err != nil {
		return err
	}
	written, err := publish(ctx, d.options, data)
	if err != nil {
		return fmt.Errorf("network configuration is not written: %w", err)
	}
	if written {
		d.log.Info("network configuration written", "file", filepath.Join(d.options.ConfDir, d.options.ConfName), "podCIDRs", strings.Join(texts(own.PodCIDRs), ","), "mtu", mtu)
	}
	return nil
}

// mtu is that of the interface which has the node's address: packets to other nodes' pods leave by it. 0 when it is not known.
func (d *Daemon) mtu(own Node, local []rtnl.InterfaceAddress) (int, error) {
	links, err := d.kernel.Links()
	if err != nil {
		return 0, err
	}
	for _, l := range local {
		if !slices.Contains(own.Addresses, l.Prefix.Addr()) {
			continue
		}
		for _, link := range links {
			if link.Index == l.Index {
				return link.MTU, nil
			}
		}
	}
	return 0, nil
}

// Cleanup removes what the daemon made: its routes and the configuration file.
func Cleanup(o Options) error {
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	_, _, err = syncRoutes(kernel, nil)
	if e := os.Remove(filepath.Join(o.ConfDir, o.ConfName)); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return err
}
