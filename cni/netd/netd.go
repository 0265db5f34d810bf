// Package netd is the network daemon of a node. It watches the cluster's Nodes and keeps two things on this
// node as they have to be: the network configuration for the container runtime, made from the node's own pod
// CIDRs, and a route to every other node's pods.
//
// It is level-triggered: whatever happens (a Node changes, somebody deletes a route, a link goes down) leads
// to the same look at all Nodes and all routes. kill -9 at any point costs nothing: configuration and routes
// stay, the next start compares again.
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

	"github.com/trivet-node/trivet/cni/hostnat"
	"github.com/trivet-node/trivet/cni/netd/cluster"
	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/rtnl"
	"github.com/trivet-node/trivet/internal/durable"
)

// Options say what to watch and where to write.
type Options struct {
	NodeName     string
	ConfDir      string // /etc/cni/net.d
	ConfName     string // 10-trivet.conflist
	Plugin       string // path of trivet-cni as the runtime sees it
	ClusterCIDRs []netip.Prefix
	ServiceCIDRs []netip.Prefix // beside the ServiceCIDRs of the API
}

func (o Options) confPath() string { return filepath.Join(o.ConfDir, o.ConfName) }

const (
	// recheck finds what gave no event: a configuration file that somebody removed.
	recheck = time.Minute
	// Between two passes are at least quiet and share times what the last one took, but no more than longest:
	// the veths of a hundred starting pods are a few events, not a hundred. The first event after that time
	// is followed at once.
	quiet, longest = 50 * time.Millisecond, time.Second
	share          = 20
	// After a failure the next attempt follows in firstRetry, then twice that, up to lastRetry.
	firstRetry, lastRetry = time.Second, 30 * time.Second
)

// Daemon keeps one node's network.
type Daemon struct {
	options Options
	log     *slog.Logger
	cluster *cluster.Cluster
	kernel  *rtnl.Conn
	dirty   chan struct{}
	retry   time.Duration   // 0: the last pass had no errors
	told    map[string]bool // errors and notes of the last pass; they are logged once

	unmended struct { // when writing the network's rules again failed last
		at  time.Time
		err error
	}

	mu     sync.Mutex
	report Report
}

// New makes a daemon; config says where the API server is.
func New(config *rest.Config, o Options, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{
		options: o,
		log:     log,
		dirty:   make(chan struct{}, 1),
		report:  Report{At: time.Now(), Errors: []string{"no look at the network yet"}},
	}
	var err error
	d.cluster, err = cluster.New(config, d.look, log)
	return d, err
}

// Run watches and repairs until ctx ends.
func (d *Daemon) Run(ctx context.Context) (err error) {
	if d.kernel, err = rtnl.Open(); err != nil {
		return err
	}
	defer func() { _ = d.kernel.Close() }()

	if err := durable.Sweep(d.options.confPath()); err != nil {
		d.log.Warn("unfinished files of an earlier run stay", "dir", d.options.ConfDir, "err", err)
	}

	var running sync.WaitGroup
	defer running.Wait()

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	if len(d.options.ClusterCIDRs) == 0 {
		d.log.Warn("--cluster-cidr is not given: a Node may claim any private network " +
			"that is about as large as this node's pod CIDR")
	}

	watched := make(chan error, 2)
	running.Go(func() { watched <- rtnl.Watch(ctx, d.look) })
	running.Go(func() { watched <- hostnat.Watch(ctx, networkName, d.look) })
	running.Go(func() { d.cluster.Run(ctx) })
	for {
		unasked := time.NewTimer(d.pass(ctx))
		select {
		case <-ctx.Done():
		case <-time.After(min(max(quiet, share*d.Report().Took), longest)):
		}

		select {
		case <-ctx.Done():
			return nil
		case err := <-watched:
			return err
		case <-d.dirty:
		case <-unasked.C:
		}

		unasked.Stop()
	}
}

// look asks for a pass; many requests at once are one.
func (d *Daemon) look() {
	select {
	case d.dirty <- struct{}{}:
	default:
	}
}

// pass compares and repairs once, tells what has changed, and says after how long to look again unasked.
func (d *Daemon) pass(ctx context.Context) time.Duration {
	r := Report{At: time.Now()}
	waiting := d.cluster.Waiting()
	if waiting == nil {
		d.reconcile(ctx, &r)
	} else { // nothing is withdrawn on half a list
		r.fail(waiting)
	}

	if ctx.Err() != nil {
		// what failed because the daemon ends is no news
		return 0
	}

	r.Took = time.Since(r.At)

	// every start begins so
	if !errors.Is(waiting, cluster.ErrNoListYet) {
		d.tell(r)
	}

	d.mu.Lock()
	d.report = r
	d.mu.Unlock()
	if len(r.Errors) == 0 {
		d.retry = 0
		return recheck
	}

	d.retry = min(max(2*d.retry, firstRetry), lastRetry)
	return d.retry
}

// Report is what the last pass found.
func (d *Daemon) Report() Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.report
}

// reconcile does one pass. The parts do not hinder each other: routes are repaired while the plugin is not
// there yet, and the other way round.
func (d *Daemon) reconcile(ctx context.Context, r *Report) {
	all, notes := d.cluster.Nodes()
	r.Nodes, r.Notes = len(all), notes
	own, ok := find(all, d.options.NodeName)
	if !ok {
		// A list without this node is none to withdraw routes on: the Node may be on its way back.
		r.fail(fmt.Errorf("node %s is not in the cluster yet", d.options.NodeName))
		return
	}

	admitted := d.admit(own, all, r)
	r.fail(d.forward(own.PodCIDRs))
	local, err := d.kernel.AllAddresses()
	if err != nil {
		r.fail(err)
		return
	}

	if err := d.route(own, admitted, local, r); err != nil {
		r.fail(err)
		return
	}

	if len(own.PodCIDRs) == 0 {
		r.fail(fmt.Errorf("node %s has no pod CIDR yet (the controller-manager gives it out: "+
			"--allocate-node-cidrs, --cluster-cidr)", own.Name))
		return
	}

	d.configure(ctx, own, admitted, local, r)
	if rival := rivals(d.options); rival != "" {
		r.Notes = append(
			r.Notes,
			fmt.Sprintf("%s sorts before %s: runtimes use that network, not this one",
				filepath.Join(d.options.ConfDir, rival), d.options.ConfName),
		)
	}
}

// admit returns the Nodes with the pod CIDRs that are believed, and tells of the others.
func (d *Daemon) admit(own podcidr.Node, all []podcidr.Node, r *Report) []podcidr.Node {
	rules := podcidr.Rules{
		Cluster:  d.options.ClusterCIDRs,
		Services: slices.Concat(d.options.ServiceCIDRs, d.cluster.Services()),
	}
	admitted, refused := rules.Admit(own, all)
	for _, f := range refused {
		r.Notes = append(r.Notes, f.String())
	}
	d.cluster.Refused(refused)
	return admitted
}

// route makes the routes to other nodes' pods the wanted ones.
func (d *Daemon) route(
	own podcidr.Node, admitted []podcidr.Node, local []rtnl.InterfaceAddress, r *Report,
) error {
	near := newVicinity(admitted, local)
	if err := near.findRouters(d.kernel, own, admitted); err != nil {
		return err
	}

	wanted, notes := wantedRoutes(own, admitted, near)
	r.Routes, r.Notes = len(wanted), append(r.Notes, notes...)

	added, deleted, err := syncRoutes(d.kernel, wanted)
	r.fail(err)
	if added+deleted > 0 {
		d.log.Info("routes changed", "added", added, "deleted", deleted, "nodes", len(admitted))
	}

	return nil
}

func find(all []podcidr.Node, name string) (podcidr.Node, bool) {
	for _, n := range all {
		if n.Name == name {
			return n, true
		}
	}
	return podcidr.Node{}, false
}

// configure makes the configuration, and what the plugin has made by it, fit the node.
func (d *Daemon) configure(
	ctx context.Context, own podcidr.Node, admitted []podcidr.Node, local []rtnl.InterfaceAddress, r *Report,
) {
	fail := func(err error) {
		r.fail(fmt.Errorf("network configuration %s is not written: %w", d.options.confPath(), err))
	}
	mtu, err := deviceMTU(d.kernel, own, local)
	if err != nil {
		fail(err)
		return
	}

	data, err := networkConfig(own.PodCIDRs, podNetworks(d.options.ClusterCIDRs, admitted), mtu)
	if err != nil {
		fail(err)
		return
	}

	network, err := parseConfig(data)
	if err != nil {
		fail(err)
		return
	}

	r.fail(d.moveBridge(network))
	written, err := publish(ctx, d.options, data)
	if written {
		d.log.Info("network configuration written",
			"file", d.options.confPath(), "podCIDRs", strings.Join(texts(own.PodCIDRs), ","), "mtu", mtu)
	}

	if err != nil {
		fail(err)
		return
	}

	// by the configuration that the plugin has, too
	r.fail(d.repairRules(network))
}

// deviceMTU is that of the interface which has the node's address, since packets to other nodes' pods leave
// by it (the smallest one, if there are several); or else that of the default route. 0 when neither is known.
func deviceMTU(kernel *rtnl.Conn, own podcidr.Node, local []rtnl.InterfaceAddress) (int, error) {
	devices := devicesOf(own, local)
	if len(devices) == 0 {
		defaults, err := kernel.DefaultRoutes()
		if err != nil {
			return 0, err
		}

		for _, r := range defaults {
			devices = append(devices, r.Index)
		}
	}

	smallest := 0
	for _, index := range devices {
		link, err := kernel.LinkByIndex(index)
		if err != nil && !rtnl.Gone(err) {
			return 0, err
		}
		if err == nil && (smallest == 0 || link.MTU < smallest) {
			smallest = link.MTU
		}
	}

	return smallest, nil
}

// Cleanup removes what the daemon made: its routes and the configuration file.
func Cleanup(o Options) error {
	kernel, err := rtnl.Open()
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	_, _, err = syncRoutes(kernel, nil)
	if e := os.Remove(o.confPath()); e != nil && !errors.Is(e, os.ErrNotExist) {
		err = errors.Join(err, e)
	}
	return errors.Join(err, durable.Sweep(o.confPath()))
}
