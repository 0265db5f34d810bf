package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
)

// exchange is another program for a seat of a node that runs.
type exchange struct {
	cluster *Cluster
	client  kubernetes.Interface
	machine *machine.Machine

	plan      Plan
	index     int
	old, next Node
}

// Exchange puts another program into a seat (agent, cri, cni or csi) of a node that runs, as an administrator
// would: pods go on, and nothing is touched but the programs and their configuration. Only a CRI server's
// pods are its own: the node must have been drained. It returns when the node works with the new program.
func (c *Cluster) Exchange(ctx context.Context, name, seatName, program string) error {
	plan, err := c.Plan()
	if err != nil {
		return fmt.Errorf("no cluster is up: %w", err)
	}

	i, err := plan.index(name)
	if err != nil {
		return err
	}

	next := plan.Nodes[i]
	if next.Seats, err = next.With(seatName, program); err != nil {
		return err
	}
	if err := next.CheckRuntime(); err != nil {
		return err
	}

	client, err := newClient(c.Kubeconfig())
	if err != nil {
		return err
	}

	e := exchange{
		cluster: c,
		client:  client,
		machine: c.Machine(name),
		plan:    plan,
		index:   i,
		old:     plan.Nodes[i],
		next:    next,
	}
	if err := e.do(ctx, seatName); err != nil {
		return fmt.Errorf("exchange %s of node %s for %s: %w", seatName, name, program, err)
	}

	return nil
}

func (e *exchange) do(ctx context.Context, seatName string) error {
	if e.old.Seats == e.next.Seats {
		return nil
	}

	switch seatName {
	case "agent":
		return e.agent(ctx)
	case "cri":
		return e.runtime(ctx)
	case "cni":
		return e.network(ctx)
	}
	return e.volumes(ctx)
}

// decided makes the new program the node's from here on.
func (e *exchange) decided() error {
	e.plan.Nodes[e.index] = e.next
	return e.cluster.state().writePlan(e.plan)
}

// stopGrace is how long a daemon may take to end before it is killed.
const stopGrace = 10 * time.Second

func (e *exchange) stop(daemon machine.Daemon) error { return e.machine.Stop(daemon.Name, stopGrace) }

func (e *exchange) programs() seat.Programs { return e.cluster.programs() }

func (e *exchange) agentOf(n Node) machine.Daemon {
	return e.programs().Agent(n.Seats, n.Name, e.index)
}

func (e *exchange) agent(ctx context.Context) error {
	if err := e.stop(e.agentOf(e.old)); err != nil {
		return err
	}
	if err := e.decided(); err != nil {
		return err
	}

	daemon := e.agentOf(e.next)
	if err := e.machine.Start(daemon); err != nil {
		return err
	}

	ours := e.next.Agent == "trivet"
	return awaitPrograms(ctx, e.client, e.machine, daemon.Name, func(info corev1.NodeSystemInfo) bool {
		return strings.Contains(info.KubeletVersion, "trivet") == ours
	})
}

// runtime exchanges the CRI server of a node without pods, and the agent comes again with it.
func (e *exchange) runtime(ctx context.Context) error {
	if err := e.checkDrained(ctx); err != nil {
		return err
	}
	if err := e.stop(e.agentOf(e.old)); err != nil {
		return err
	}
	if err := e.stop(e.programs().CRIServer(e.old.Seats)); err != nil {
		return err
	}
	if err := e.decided(); err != nil {
		return err
	}

	files := e.cluster.state().nodeFiles(e.next.Name)
	if err := writeRuntimeFiles(files, e.programs(), e.next.Seats); err != nil {
		return err
	}
	if err := files.write(seat.AgentFiles(e.next.Seats)); err != nil {
		return err
	}

	server := e.programs().CRIServer(e.next.Seats)
	if err := e.machine.Start(server); err != nil {
		return err
	}
	if err := awaitCRI(ctx, e.machine, e.next.CRISocket(), server.Name); err != nil {
		return err
	}

	daemon := e.agentOf(e.next)
	if err := e.machine.Start(daemon); err != nil {
		return err
	}

	ours := e.next.CRI == "trivet"
	return awaitPrograms(ctx, e.client, e.machine, daemon.Name, func(info corev1.NodeSystemInfo) bool {
		return strings.HasPrefix(info.ContainerRuntimeVersion, "trivet") == ours
	})
}

// checkDrained returns an error that names a pod that is still on the node.
func (e *exchange) checkDrained(ctx context.Context) error {
	here := metav1.ListOptions{FieldSelector: "spec.nodeName=" + e.old.Name}
	pods, err := e.client.CoreV1().Pods("").List(ctx, here)
	if err != nil || len(pods.Items) == 0 {
		return err
	}

	first := pods.Items[0]
	return fmt.Errorf("pod %s/%s is on it, whose containers only its CRI server knows: drain the node first",
		first.Namespace, first.Name)
}

// network exchanges the CNI plugin. The new one takes over the network by its name, and its bridge, so that
// pods keep their addresses and their neighbours.
func (e *exchange) network(ctx context.Context) error {
	e.next.Attached = e.old.network()
	if e.next.Attached == e.next.Network() {
		e.next.Attached = seat.Network{}
	}
	if err := e.decided(); err != nil {
		return err
	}

	// The plugins of the old seat stay, for the end of the pods that they have attached.
	files := e.cluster.state().nodeFiles(e.next.Name)
	if err := writeRuntimeFiles(files, e.programs(), e.next.Seats); err != nil {
		return err
	}

	if e.next.CNI == "trivet" {
		return e.networkOfNetd(ctx, files)
	}
	return e.networkOfUpstream(ctx, files)
}

// networkOfNetd removes upstream's configuration, which comes first, when netd has written its own.
func (e *exchange) networkOfNetd(ctx context.Context, files nodeFiles) error {
	netd := e.programs().Netd(e.next.Name, e.next.network())
	if err := e.machine.Start(netd); err != nil {
		return err
	}

	written := func(context.Context) (bool, error) {
		_, err := os.Stat(filepath.Join(string(files), seat.NetdConflist))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}

	const interval = 20 * time.Millisecond
	daemons := []string{netd.Name}
	err := await(ctx, "its network configuration", interval, e.machine, daemons, written)
	if err != nil {
		return err
	}

	return os.Remove(filepath.Join(string(files), seat.UpstreamConflist))
}

// networkOfUpstream writes upstream's configuration, which comes first, and ends netd with what it has made.
func (e *exchange) networkOfUpstream(ctx context.Context, files nodeFiles) error {
	node, err := e.client.CoreV1().Nodes().Get(ctx, e.next.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}

	path, conflist := seat.UpstreamNetwork(e.next.network(), node.Spec.PodCIDRs)
	if err := files.write(map[string]string{path: conflist}); err != nil {
		return err
	}

	netd := e.programs().Netd(e.next.Name, e.next.network())
	if err := e.stop(netd); err != nil {
		return err
	}

	cmd, err := e.machine.Command(ctx, netd.Argv[0], append(netd.Argv[1:], "--cleanup")...)
	if err != nil {
		return err
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("trivet-netd --cleanup: %w: %s", err, out)
	}

	return connectNodes(ctx, e.client, e.cluster.state(), e.plan)
}

// volumes exchanges the provisioner of new volumes. Those that are there stay with the driver that made them:
// a pod keeps what is mounted, and what a driver has to do for a volume waits until it is back.
func (e *exchange) volumes(ctx context.Context) error {
	driver := e.programs().CSI(e.old.Seats, e.old.Name, e.old.Volumes)
	if e.next.CSI == seat.LocalPath {
		if err := e.stop(driver); err != nil {
			return err
		}
	}
	if err := e.decided(); err != nil {
		return err
	}

	if e.next.CSI == seat.LocalPath {
		return startLocalPath(ctx, e.cluster, e.plan)
	}
	return e.machine.Start(driver)
}
