package cluster

import (
	"context"

	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
)

// MetricsServer is metrics-server on a cluster that is up: what kubectl top and autoscalers ask.
type MetricsServer struct{ cluster *Cluster }

// NewMetricsServer returns that of the cluster, which may have it or not.
func NewMetricsServer(c *Cluster) MetricsServer { return MetricsServer{c} }

// Install applies its manifests and does not wait for it: it has something to tell some ten seconds after a
// node is Ready.
func (m MetricsServer) Install(ctx context.Context) error {
	return m.kubectl(ctx, "apply", "-f", "-")
}

// Remove returns when its pod is gone.
func (m MetricsServer) Remove(ctx context.Context) error {
	return m.kubectl(ctx, "delete", "--ignore-not-found", "--cascade=foreground", "-f", "-")
}

func (m MetricsServer) kubectl(ctx context.Context, args ...string) error {
	manifests, err := controlplane.MetricsServer(m.cluster.state().pki())
	if err != nil {
		return err
	}
	return kubectl(ctx, m.cluster, manifests, args...)
}
