package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/apiproxy"
	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/machine"
)

func (c *Cluster) plane() controlplane.Plane {
	return controlplane.Plane{
		Programs: c.programs(),
		PKI:      c.state().pki(),
		Images:   c.Images,
		Data:     c.state().path(machinesDir, controlplane.Name, "etcd"),
		Corefile: c.state().path(machinesDir, controlplane.Name, "Corefile"),
	}
}

// startControlPlane boots the control plane's machine and starts the API server, what it needs, and the
// host's way to it.
func (c *Cluster) startControlPlane(ctx context.Context, plan Plan) error {
	m := c.state().controlPlane()
	config := machine.Config{
		Name:   controlplane.Name,
		Group:  c.state().group(controlplane.Name),
		Hosts:  hosts(controlplane.Name, address.ControlPlane),
		Expose: samePath(c.Dir, c.Bin, c.Programs, c.Images),
	}
	if err := m.Boot(ctx, config); err != nil {
		return err
	}
	if err := lan.Switch(m.Pid(), onLAN(plan.Stack.Machine(address.ControlPlane))...); err != nil {
		return err
	}
	if err := startAll(m, c.plane().Base()); err != nil {
		return err
	}

	c.say("control plane started")
	return apiproxy.Start(c.Dir, plan.Port, m.Dir, m.LogFile("api-proxy"))
}

// startControllers starts what needs the API server.
func (c *Cluster) startControllers() error {
	p := c.plane()
	if err := os.WriteFile(p.Corefile, []byte(p.DNSConfig()), 0o644); err != nil {
		return err
	}
	return startAll(c.state().controlPlane(), p.Controllers())
}

func startAll(m *machine.Machine, daemons []machine.Daemon) error {
	for _, d := range daemons {
		if err := m.Start(d); err != nil {
			return err
		}
	}
	return nil
}

// startServiceProxy makes Services reachable for the API server, which calls webhooks and aggregated APIs by
// them. The control plane has no Node of its own, so kube-proxy is given the name of another.
func (c *Cluster) startServiceProxy(plan Plan) error {
	// A Service's address is translated on the way out, which a packet without a route never goes.
	node := plan.Stack.Machine(address.Node(0))
	for _, services := range address.Prefixes(plan.Stack.Services()) {
		via := address.Of(services, node)
		if err := lan.Route(c.state().controlPlane().Pid(), services, via); err != nil {
			return err
		}
	}

	kubeconfig := c.state().pki().Path("proxy.kubeconfig")
	return c.state().controlPlane().Start(c.programs().KubeProxy(plan.Nodes[0].Name, kubeconfig))
}

// installManifests applies what a cluster starts with.
func (c *Cluster) installManifests(ctx context.Context) error {
	manifests, err := controlplane.Manifests(c.state().pki(), c.Deploy)
	if err != nil {
		return err
	}
	if err := kubectl(ctx, c, manifests, "apply", "-f", "-"); err != nil || !c.MetricsServer {
		return err
	}

	return NewMetricsServer(c).Install(ctx)
}

// kubectl runs the real one as the cluster's administrator.
func kubectl(ctx context.Context, c *Cluster, stdin string, args ...string) error {
	cmd := exec.CommandContext(ctx, c.programs().Peer("kubectl"), args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig())
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}

	return nil
}

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

// startSnapshots runs the snapshot controller beside the control plane, if it is wanted.
func startSnapshots(ctx context.Context, c *Cluster) error {
	if !c.Snapshots {
		return nil
	}

	kinds, err := c.plane().SnapshotKinds()
	if err != nil {
		return err
	}
	classes, err := controlplane.SnapshotClasses(c.Deploy)
	if err != nil {
		return err
	}
	if err := kubectl(ctx, c, kinds, "apply", "-f", "-"); err != nil {
		return err
	}

	// The classes are of these kinds.
	established := []string{"wait", "--for=condition=Established", "--timeout=60s", "-f", "-"}
	if err := kubectl(ctx, c, kinds, established...); err != nil {
		return err
	}
	if err := kubectl(ctx, c, classes, "apply", "-f", "-"); err != nil {
		return err
	}
	return c.state().controlPlane().Start(c.plane().SnapshotController())
}

// startLocalPath installs local-path-provisioner, if it sits on a node of the plan, and starts it beside the
// control plane. It stays when it has no seat any more: volumes that it has made are for it to remove.
func startLocalPath(ctx context.Context, c *Cluster, plan Plan) error {
	if !plan.has(func(n Node) bool { return n.CSI == seat.LocalPath }) {
		return nil
	}
	if err := kubectl(ctx, c, controlplane.LocalPath, "apply", "-f", "-"); err != nil {
		return err
	}
	return c.state().controlPlane().Start(c.plane().LocalPath())
}
