// Package cluster brings up a real Kubernetes cluster on one host and takes it down again: etcd, API server,
// controller manager, scheduler, registry and CoreDNS on a machine of their own, and any number of nodes,
// each with the agent, CRI server and CNI plugin that was chosen for it. The machines are namespaces (package
// machine) on a LAN of theirs (package lan). What runs on them is decided by packages seat and controlplane.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"time"

	"github.com/trivet-node/trivet/e2e/cluster/address"
	"github.com/trivet-node/trivet/e2e/cluster/apiproxy"
	"github.com/trivet-node/trivet/e2e/cluster/controlplane"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/lan"
	"github.com/trivet-node/trivet/e2e/machine"
)

// Cluster is a handle on what lives below a state directory. All paths are absolute.
type Cluster struct {
	Dir      string    // state: keys, machines, kubeconfig
	Bin      string    // reference programs
	Programs string    // trivet's programs
	Images   string    // OCI layout that the registry serves
	Deploy   string    // manifests of trivet's parts
	Out      io.Writer // progress

	// MetricsServer says whether Up installs metrics-server.
	MetricsServer bool

	// Snapshots says whether Up runs the snapshot controller, with its kinds and trivet-csi's classes.
	Snapshots bool

	// Stack is which families of addresses Up gives a new cluster.
	Stack address.Stack

	// Zones is in how many zones Up puts the nodes of a new cluster; 0: in none.
	Zones int

	start time.Time
	mu    sync.Mutex // guards Out, so that lines of progress stay whole
}

func (c *Cluster) state() stateDir { return stateDir(c.Dir) }

func (c *Cluster) programs() seat.Programs {
	// Without a plan there is no daemon yet whose command line depends on it.
	plan, _ := c.Plan()
	return seat.Programs{
		Ours:      c.Programs,
		Reference: c.Bin,
		Stack:     plan.Stack,
		Zones:     plan.Zones,
	}
}

// Kubeconfig is the administrator's, good on the host.
func (c *Cluster) Kubeconfig() string { return c.state().path(kubeconfigFile) }

// KubectlCache is for kubectl's environment variable KUBECACHEDIR.
func (c *Cluster) KubectlCache() string { return c.state().path(kubectlCache) }

// Plan returns the plan of the cluster that is up; fs.ErrNotExist when none is.
func (c *Cluster) Plan() (Plan, error) { return c.state().plan() }

// Machine is that of the control plane (controlplane.Name) or of a node.
func (c *Cluster) Machine(name string) *machine.Machine { return c.state().machine(name) }

// Machines are those that have a record, up or down, by name.
func (c *Cluster) Machines() ([]*machine.Machine, error) { return c.state().machines() }

func (c *Cluster) say(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start.IsZero() {
		c.start = time.Now()
	}
	fmt.Fprintf(c.Out, "%6.1fs  %s\n", time.Since(c.start).Seconds(), fmt.Sprintf(format, args...))
}

// Up brings the cluster up and returns when all nodes are Ready. A cluster that is up stays as it is; what is
// missing of it is started.
func (c *Cluster) Up(ctx context.Context, nodes []Node) error {
	c.start = time.Now()
	plan, err := c.adopt(ctx, nodes)
	if err != nil {
		return err
	}

	server := fmt.Sprintf("https://127.0.0.1:%d", plan.Port)
	if err := controlplane.MakeIdentities(c.state().pki(), plan.names(), server, c.Kubeconfig()); err != nil {
		return err
	}

	// The nodes boot while the API server starts.
	if err := c.startControlPlane(ctx, plan); err != nil {
		return err
	}
	if err := plan.onEach(func(i int, n Node) error { return c.startNode(ctx, i, n) }); err != nil {
		return err
	}

	client, err := newClient(c.Kubeconfig())
	if err != nil {
		return err
	}
	if err := awaitAPI(ctx, client, c.state().controlPlane()); err != nil {
		return err
	}

	c.say("API server is ready")
	if err := c.startControllers(); err != nil {
		return err
	}
	if err := c.installManifests(ctx); err != nil {
		return err
	}

	if err := startLocalPath(ctx, c, plan); err != nil {
		return err
	}
	if err := startSnapshots(ctx, c); err != nil {
		return err
	}

	c.say("add-ons are installed")
	if err := plan.onEach(func(i int, n Node) error { return c.joinNode(ctx, client, i, n) }); err != nil {
		return err
	}
	if err := c.startServiceProxy(plan); err != nil {
		return err
	}

	return connectNodes(ctx, client, c.state(), plan)
}

// adopt takes the nodes as the plan, or checks that they are those that are up already. Without a plan,
// everything that runs is left of a cluster whose directory was removed under it.
func (c *Cluster) adopt(ctx context.Context, nodes []Node) (Plan, error) {
	old, err := c.Plan()
	switch {
	case err == nil:
		return old, old.check(Plan{Nodes: nodes, Stack: c.Stack, Zones: c.Zones})
	case !errors.Is(err, fs.ErrNotExist):
		return old, err
	}

	for _, n := range nodes {
		if err := errors.Join(n.Validate(), n.CheckRuntime()); err != nil {
			return Plan{}, fmt.Errorf("node %s: %w", n.Name, err)
		}
	}

	if err := c.clear(ctx); err != nil {
		return Plan{}, err
	}

	port, err := apiproxy.FreePort()
	if err != nil {
		return Plan{}, err
	}

	// Last, so that a plan is never there without the snapshot to which the host is compared in the end.
	plan := Plan{
		Port:  port,
		Nodes: nodes,
		Stack: c.Stack,
		Zones: c.Zones,
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return plan, err
	}
	if err := rememberHost(c.state()); err != nil {
		return plan, err
	}

	return plan, c.state().writePlan(plan)
}

// Down ends every machine and removes what the cluster has made, except the reference programs and images. It
// is safe to repeat.
func (c *Cluster) Down(ctx context.Context) error {
	c.start = time.Now()
	if err := c.clear(ctx); err != nil {
		return err
	}
	c.say("the cluster is down")
	return nil
}

// clear ends the machines that have records, then those that have none but are in the cluster's cgroup, and
// removes what a cluster makes.
func (c *Cluster) clear(ctx context.Context) error {
	machines, err := c.Machines()
	if err != nil {
		return err
	}

	var group sync.WaitGroup
	errs := make([]error, len(machines))
	for i, m := range machines {
		group.Go(func() { errs[i] = m.Halt(ctx) })
	}

	group.Wait()

	errs = append(errs, apiproxy.Stop(c.Dir), machine.Sweep(ctx, c.state().groups()), detachLoops(machines))
	if err := errors.Join(errs...); err != nil {
		return err
	}

	for _, name := range removable {
		if err := os.RemoveAll(c.state().path(name)); err != nil {
			return err
		}
	}

	return nil
}

// Reboot cuts a node's power and boots it: all its processes, mounts and cgroups go at once, then it comes up
// with a new boot ID and the daemons of its seats.
func (c *Cluster) Reboot(ctx context.Context, name string) error {
	plan, err := c.Plan()
	if err != nil {
		return err
	}

	i, err := plan.index(name)
	if err != nil {
		return err
	}

	if err := c.Machine(name).Halt(ctx); err != nil {
		return err
	}
	if err := c.startNode(ctx, i, plan.Nodes[i]); err != nil {
		return err
	}

	client, err := newClient(c.Kubeconfig())
	if err != nil {
		return err
	}
	if err := c.joinNode(ctx, client, i, plan.Nodes[i]); err != nil {
		return err
	}

	return connectNodes(ctx, client, c.state(), plan)
}

// Cable pulls or plugs the network cable of a node.
func (c *Cluster) Cable(node string, plugged bool) error {
	if plugged {
		return lan.Mend(c.state().controlPlane().Pid(), node)
	}
	return lan.Cut(c.state().controlPlane().Pid(), node)
}
