// Package cluster is what trivet-netd reads of the Kubernetes API, the Nodes and the networks of Services,
// and the Events that it writes.
package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
	"github.com/trivet-node/trivet/cni/prefix"
	"github.com/trivet-node/trivet/internal/kube"
)

// dialTimeout bounds one attempt to connect. Until kube-proxy has written its rules, nobody answers at the
// address of the API's Service: with a longer timeout a node that starts would notice late that the rules are
// there.
const dialTimeout = 2500 * time.Millisecond

// answerTimeout bounds a request: an API server that is busy answers late.
const answerTimeout = 15 * time.Second

// Cluster watches a cluster.
type Cluster struct {
	client   *kube.Client
	nodes    *nodes
	services *services
	events   *events
	// servers are the addresses of the API server, as far as they are known.
	servers []netip.Prefix
}

// New prepares the watches and connects to nothing. changed is called when there may be something new; it
// must not block.
func New(cfg kube.Config, changed func(), log *slog.Logger) (*Cluster, error) {
	cfg.DialTimeout = dialTimeout
	client, err := kube.New(cfg)
	if err != nil {
		return nil, err
	}

	// client-go accepts a server that is not a URL as well. Its address is then not known here.
	host, _, _ := cfg.Server()
	return &Cluster{
		client:   client,
		nodes:    newNodes(kube.Nodes(client), changed, log),
		services: newServices(serviceCIDRs(client), changed, log),
		events:   newEvents(kube.Events(client), log),
		servers:  addressesOf(host, os.Getenv("KUBERNETES_SERVICE_HOST")),
	}, nil
}

// addressesOf returns those hosts that are addresses. The configuration of a pod has the address of the API's
// Service.
func addressesOf(hosts ...string) (all []netip.Prefix) {
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			all = append(all, prefix.Single(a.WithZone("").Unmap()))
		}
	}
	return all
}

// Run watches until ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	running.Go(func() { c.nodes.run(ctx) })
	running.Go(func() { c.events.run(ctx) })

	// The Nodes are what everything waits for.
	running.Go(func() {
		if kube.AwaitListed(ctx, c.nodes.watch) == nil {
			c.services.watch.Run(ctx)
		}
	})
}

// Client returns the connection to the API server, for other watches.
func (c *Cluster) Client() *kube.Client { return c.client }

// Waiting says why there is no list of Nodes yet; it returns nil when there is one.
func (c *Cluster) Waiting() error { return c.nodes.waiting() }

// Nodes returns the Nodes by name. What cannot be parsed is left out and named in notes.
func (c *Cluster) Nodes() (all []podcidr.Node, notes []string) { return c.nodes.list() }

// Services returns the networks of Services and the addresses of the API server, as far as they are known.
func (c *Cluster) Services() []netip.Prefix { return append(c.services.networks(), c.servers...) }

// RecordRefusals records in an Event of the Node, for the cluster's administrator, that a pod CIDR is
// refused. all are those of one pass. It does not wait.
func (c *Cluster) RecordRefusals(all []podcidr.Refusal) { c.events.record(all) }
