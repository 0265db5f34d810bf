// Package part puts a part of trivet into a kind cluster that runs, and takes it away again, with the
// commands of the documents in deploy. What has been there before, and comes back, is what kind has there: no
// network add-on, no provisioner, containerd, kubelet.
package part

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Part is a part of trivet in its seat. Both calls may be repeated, also after one that was cut off.
type Part interface {
	// String names the part, and the node on which it is where it is on one.
	String() string

	// Install puts it into its seat and returns when the cluster works with it.
	Install(ctx context.Context) error

	// Remove brings back what was there before, and returns when the cluster works with that.
	Remove(ctx context.Context) error
}

// Tried is a part that an installer may still take back when Install or Remove has returned.
type Tried interface {
	// Installed returns what the installer says when the part is there for good, Removed when there is
	// nothing of it any more.
	Installed(ctx context.Context) (string, error)
	Removed(ctx context.Context) error
}

// Cluster is what the parts need of a cluster.
type Cluster interface {
	// Kubectl runs kubectl and returns what it prints.
	Kubectl(ctx context.Context, stdin string, args ...string) (string, error)

	// OnNode runs a shell script on a node and returns what it prints.
	OnNode(ctx context.Context, node, script string) (string, error)
}

// Files says where the parts are taken from.
type Files struct {
	Deploy string // directory with the manifests
}

func (f Files) manifest(part, name string) string { return filepath.Join(f.Deploy, part, name+".yaml") }

// patience is how long a cluster may take to settle.
const patience = 2 * time.Minute

// limit is patience for kubectl.
const limit = "--timeout=2m"

// glance is how long one look may take, as while the API server is away.
const glance = 30 * time.Second

// settle looks until nothing is wrong. The end of its patience cuts no look off: what was seen last is said.
func settle(ctx context.Context, what string, look func(context.Context) error) error {
	return settleWithin(ctx, patience, what, look)
}

func settleWithin(
	ctx context.Context, patience time.Duration, what string, look func(context.Context) error,
) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	interval := 500 * time.Millisecond
	err := retry.Until(limited, retry.Backoff{First: interval, Max: interval}, func(context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, glance)
		defer cancel()
		return look(ctx)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// names are the cluster's nodes.
func names(ctx context.Context, c Cluster) ([]string, error) {
	out, err := c.Kubectl(ctx, "", "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}")
	return strings.Fields(out), err
}

// daemons waits until the DaemonSet runs on every node.
func daemons(ctx context.Context, c Cluster, name string) error {
	_, err := c.Kubectl(ctx, "", "-n", "kube-system", "rollout", "status", "daemonset/"+name, limit)
	return err
}

// gone waits until no pod of the application is left.
func gone(ctx context.Context, c Cluster, app string) error {
	return settle(ctx, "pods of "+app, func(ctx context.Context) error {
		out, err := c.Kubectl(ctx, "", "-n", "kube-system", "get", "pods", "-o", "name",
			"-l", "app.kubernetes.io/name="+app)
		if err == nil && out != "" {
			err = fmt.Errorf("still there: %s", strings.Join(strings.Fields(out), ", "))
		}
		return err
	})
}

// onEach runs a script on every node.
func onEach(ctx context.Context, c Cluster, script string) error {
	nodes, err := names(ctx, c)
	if err != nil {
		return err
	}

	for _, node := range nodes {
		if _, err := c.OnNode(ctx, node, script); err != nil {
			return fmt.Errorf("node %s: %w", node, err)
		}
	}
	return nil
}

// KubernetesIn is the version of Kubernetes that a directory has kubeadm of, such as v1.37.2.
func KubernetesIn(ctx context.Context, dir string) (string, error) {
	kubeadm := filepath.Join(dir, "kubeadm")
	out, err := exec.CommandContext(ctx, kubeadm, "version", "--output=short").Output()
	if err != nil {
		return "", fmt.Errorf("version of %s: %w", kubeadm, err)
	}
	return strings.TrimSpace(string(out)), nil
}
