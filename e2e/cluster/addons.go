package cluster

import (
	"context"

	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
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

// startLocalPath installs local-path-provisioner, if it sits on a node of the plan, and starts it beside the
// control plane. It stays when it has no seat any more: volumes that it has made are for it to remove.
func (c *Cluster) startLocalPath(ctx context.Context, plan Plan) error {
	if !plan.has(func(n Node) bool { return n.CSI == seat.LocalPath }) {
		return nil
	}
	if err := kubectl(ctx, c, controlplane.LocalPath, "apply", "-f", "-"); err != nil {
		return err
	}
	return c.state().controlPlane().Start(c.plane().LocalPath())
}
