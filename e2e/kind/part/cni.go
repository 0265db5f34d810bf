package part

import (
	"context"
	"errors"
	"strings"
)

// CNI is trivet-cni with trivet-netd, by the DaemonSet of deploy/cni.
type CNI struct {
	Cluster Cluster
	Files   Files
}

func (p CNI) String() string { return "trivet-cni" }

// Install returns when the nodes are Ready and names resolve.
func (p CNI) Install(ctx context.Context) error {
	_, err := p.Cluster.Kubectl(ctx, "", "apply",
		"-f", p.Files.manifest("cni", "rbac"), "-f", p.Files.manifest("cni", "daemonset"))
	if err != nil {
		return err
	}
	if err := daemons(ctx, p.Cluster, "trivet-netd"); err != nil {
		return err
	}

	_, err = p.Cluster.Kubectl(ctx, "", "wait", "--for=condition=Ready", "nodes", "--all", limit)
	if err != nil {
		return err
	}

	_, err = p.Cluster.Kubectl(ctx, "", "-n", "kube-system", "rollout", "status", "deployment/coredns", limit)
	return err
}

// Remove returns when the nodes are not Ready, as without a network. Pods that run keep theirs: the bridge,
// the plugin and its rules stay for their end.
func (p CNI) Remove(ctx context.Context) error {
	_, err := p.Cluster.Kubectl(ctx, "", "delete", "--ignore-not-found",
		"-f", p.Files.manifest("cni", "daemonset"), "-f", p.Files.manifest("cni", "rbac"))
	if err != nil {
		return err
	}
	if err := gone(ctx, p.Cluster, "trivet-netd"); err != nil {
		return err
	}

	err = onEach(ctx, p.Cluster, "rm -f /etc/cni/net.d/10-trivet.conflist; "+
		"ip route flush proto 117; ip -6 route flush proto 117")
	if err != nil {
		return err
	}

	return settle(ctx, "nodes without a network", p.unready)
}

// unready returns an error while a node is still Ready.
func (p CNI) unready(ctx context.Context) error {
	const path = `jsonpath={range .items[*]}{.metadata.name}=` +
		`{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`
	out, err := p.Cluster.Kubectl(ctx, "", "get", "nodes", "-o", path)
	if err != nil {
		return err
	}
	if strings.Contains(out, "=True") {
		return errors.New("still Ready: " + strings.Join(strings.Fields(out), ", "))
	}
	return nil
}
