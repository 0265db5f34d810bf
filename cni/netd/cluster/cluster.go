// Package cluster is what trivet-netd reads from the Kubernetes API, the Nodes and the networks of Services,
// and the Events that it writes.
package cluster

import (
	"context"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"sync"

	"k8s.io/client-go/rest"

	"github.com/trivet-node/trivet/cni/netd/podcidr"
)

// Cluster watches a cluster.
type Cluster struct {
	nodes    *nodes
	services *services
	events   *events
	servers  []netip.Prefix // addresses of the API server, as far as they are known
}

// New prepares the watches; changed is called when there may be something new.
func New(config *rest.Config, changed func(), log *slog.Logger) (*Cluster, error) {
	core, err := coreClient(config)
	if err != nil {
		return nil, err
	}

	networking, err := networkingClient(config)
	if err != nil {
		return nil, err
	}

	c := &Cluster{services: newServices(networking, changed, log), events: newEvents(core, log),
		servers: apiServers(config)}
	c.nodes, err = newNodes(core, changed)
	return c, err
}

// apiServers are the addresses by which the API server is reached. The configuration of a pod has its
// Service's.
func apiServers(config *rest.Config) []netip.Prefix {
	hosts := []string{os.Getenv("KUBERNETES_SERVICE_HOST")}
	if u, err := url.Parse(config.Host); err == nil {
		hosts = append(hosts, u.Hostname())
	}

	var all []netip.Prefix
	for _, h := range hosts {
		if a, err := netip.ParseAddr(h); err == nil {
			a = a.WithZone("").Unmap()
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}

	return all
}

// Run watches until ctx ends.
func (c *Cluster) Run(ctx context.Context) {
	var running sync.WaitGroup
	running.Go(func() { c.nodes.run(ctx) })
	running.Go(func() {
		if c.nodes.listed(ctx) {
			c.services.run(ctx)
		}
	})
	running.Go(func() { c.events.run(ctx) })
	running.Wait()
}

// Waiting says why there is no list of Nodes yet; nil when there is one.
func (c *Cluster) Waiting() error { return c.nodes.waiting() }

// Nodes returns the Nodes by name. What cannot be parsed is left out and told in notes.
func (c *Cluster) Nodes() (all []podcidr.Node, notes []string) { return c.nodes.list() }

// Services are the networks of Services and the addresses of the API server, as far as they are known.
func (c *Cluster) Services() []netip.Prefix { return append(c.services.networks(), c.servers...) }

// Refused tells the cluster's administrator, by an Event of the Node, that a pod CIDR is not believed. It
// does not wait.
func (c *Cluster) Refused(all []podcidr.Refusal) { c.events.refused(all) }
