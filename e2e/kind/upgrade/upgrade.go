// Package upgrade brings a cluster whose nodes have trivet-node in kubelet's service to the next minor
// version of Kubernetes by kubeadm: the control plane first, then the nodes, with the commands of
// https://kubernetes.io/docs/tasks/administer-cluster/kubeadm/kubeadm-upgrade/ and of the page on worker
// nodes beside it. What runs on a node is not touched before that is drained.
package upgrade

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/e2e/kind/part"
)

// Cluster is what an upgrade needs of a cluster.
type Cluster interface {
	part.Cluster

	// Copy puts a file of the host on a node.
	Copy(ctx context.Context, node, file, path string) error
}

// Upgrade is one of a cluster of two nodes.
type Upgrade struct {
	Cluster Cluster

	// Programs is the directory with kubeadm, kubectl and kubelet of the version that the cluster is to have.
	Programs string

	// ControlPlane and Worker are the nodes. Pods may run on both.
	ControlPlane, Worker string

	// Say prints a line of progress.
	Say func(format string, args ...any)
}

// step is one of the commands of kubeadm's pages, or a look at what they have led to.
type step struct {
	name string
	do   func(context.Context) error
}

// Run returns when both nodes are in use again and everything is of the new version. A cluster that is of it
// already is an error, because nothing would be upgraded.
func (u Upgrade) Run(ctx context.Context) error {
	to, err := u.target(ctx)
	if err != nil {
		return err
	}

	seen := witnesses{cluster: u.Cluster, nodes: []string{u.ControlPlane, u.Worker}}
	if err := seen.start(ctx); err != nil {
		return err
	}
	if err := u.take(ctx, u.steps(to, &seen)); err != nil {
		return err
	}
	return seen.clean(ctx)
}

// target is the version of the programs. That of the cluster is another one.
func (u Upgrade) target(ctx context.Context) (string, error) {
	to, err := part.KubernetesIn(ctx, u.Programs)
	if err != nil {
		return "", err
	}

	from, err := u.served(ctx)
	if err != nil {
		return "", err
	}
	if from == to {
		return "", fmt.Errorf("the cluster is of Kubernetes %s already", to)
	}

	u.Say("upgrading the cluster from Kubernetes %s to %s", from, to)
	return to, nil
}

// steps are the whole upgrade in its order.
func (u Upgrade) steps(to string, seen *witnesses) []step {
	apply := "kubeadm upgrade apply " + to + " --yes" + ignored
	return []step{
		{"kubeadm upgrade plan", u.onNode(u.ControlPlane, "kubeadm upgrade plan "+to+ignored)},
		{"kubeadm upgrade apply on the control plane", u.onNode(u.ControlPlane, apply)},
		{"the control plane is " + to, func(ctx context.Context) error { return u.planeIs(ctx, to) }},
		{"kube-proxy and CoreDNS are rolled out", u.addonsAre(to)},
		{"no pod of before was restarted", seen.unchanged},

		{"the control plane's node is drained", u.drain(u.ControlPlane, seen)},
		{"trivet-node has the new configuration there", u.restartAgent(u.ControlPlane)},

		{"kubeadm upgrade node on the worker", u.onNode(u.Worker, "kubeadm upgrade node"+ignored)},
		{"no pod of the worker was restarted", seen.unchanged},
		{"the worker is drained", u.drain(u.Worker, seen)},
		{"trivet-node has the new configuration there", u.restartAgent(u.Worker)},
		{"the control plane is still " + to, func(ctx context.Context) error { return u.planeIs(ctx, to) }},
	}
}

// ignored is what kubeadm wants to be ignored by its name with cgroup v1, which kubelet's configuration
// allows.
const ignored = " --ignore-preflight-errors=SystemVerification"

// take takes the steps, and says how long each took.
func (u Upgrade) take(ctx context.Context, steps []step) error {
	for _, s := range steps {
		began := time.Now()
		if err := s.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		u.Say("%s (%.1f s)", s.name, time.Since(began).Seconds())
	}
	return nil
}

// onNode runs the new kubeadm on a node, as a person does who has upgraded its package.
func (u Upgrade) onNode(node, command string) func(context.Context) error {
	return func(ctx context.Context) error {
		err := u.Cluster.Copy(ctx, node, filepath.Join(u.Programs, "kubeadm"), "/usr/bin/kubeadm")
		if err != nil {
			return err
		}

		// kubeadm's progress goes to the other stream, and says more than its error.
		_, err = u.Cluster.OnNode(ctx, node, command+" >&2")
		return err
	}
}

// drain takes a node out of use. Its witness goes with it.
func (u Upgrade) drain(node string, seen *witnesses) func(context.Context) error {
	return func(ctx context.Context) error {
		_, err := u.Cluster.Kubectl(ctx, "", "drain", node, "--force", "--ignore-daemonsets",
			"--delete-emptydir-data", limit)
		seen.forget(node)
		return err
	}
}

// restartAgent puts kubectl and kubelet of the new version on a node, restarts the service of the agent, and
// takes the node into use again. What still runs there, DaemonSets and static pods, is not restarted.
func (u Upgrade) restartAgent(node string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, name := range []string{"kubectl", "kubelet"} {
			err := u.Cluster.Copy(ctx, node, filepath.Join(u.Programs, name), "/usr/bin/"+name)
			if err != nil {
				return err
			}
		}

		agent := part.DropIn{Cluster: u.Cluster, Node: node}
		if err := agent.Restart(ctx); err != nil {
			return err
		}

		_, err := u.Cluster.Kubectl(ctx, "", "uncordon", node)
		return err
	}
}
