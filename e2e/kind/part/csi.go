package part

import (
	"context"
	"fmt"
	"os"
	"regexp"
)

// CSI is trivet-csi by the DaemonSet of deploy/csi, with its class as the default one, and with snapshots.
type CSI struct {
	Cluster Cluster
	Files   Files

	// PoolSize is the share of the disk that each node may promise: nodes of kind are on one.
	PoolSize string

	// SnapshotKinds is the file with the kinds of snapshots.
	SnapshotKinds string
}

func (p CSI) String() string { return "trivet-csi" }

// kindsClass is the default class of kind.
const kindsClass = "standard"

const defaultClass = "storageclass.kubernetes.io/is-default-class"

// Install returns when each node has a driver.
func (p CSI) Install(ctx context.Context) error {
	daemonset, err := p.daemonset()
	if err != nil {
		return err
	}

	if err := p.snapshots().install(ctx); err != nil {
		return err
	}
	_, err = p.Cluster.Kubectl(ctx, "", "apply",
		"-f", p.Files.manifest("csi", "driver"), "-f", p.Files.manifest("csi", "storageclasses"),
		"-f", p.Files.manifest("csi", "rbac"), "-f", p.Files.manifest("csi", "policy"))
	if err != nil {
		return err
	}
	if _, err := p.Cluster.Kubectl(ctx, daemonset, "apply", "-f", "-"); err != nil {
		return err
	}

	_, err = p.Cluster.Kubectl(ctx, "", "annotate", "storageclass", kindsClass, defaultClass+"-")
	if err != nil {
		return err
	}
	if err := daemons(ctx, p.Cluster, "trivet-csi"); err != nil {
		return err
	}
	if err := p.snapshots().works(ctx); err != nil {
		return err
	}

	return settle(ctx, "drivers", p.registered)
}

var nodeName = regexp.MustCompile(`(?m)^( *)- --node-name=.*$`)

// daemonset is that of deploy/csi with the size of the pools.
func (p CSI) daemonset() (string, error) {
	file := p.Files.manifest("csi", "daemonset")
	data, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	if !nodeName.Match(data) {
		return "", fmt.Errorf("%s: no line has --node-name", file)
	}
	return nodeName.ReplaceAllString(string(data), "$0\n$1- --pool-size="+p.PoolSize), nil
}

// registered returns an error while a node's agent does not know the driver.
func (p CSI) registered(ctx context.Context) error {
	nodes, err := names(ctx, p.Cluster)
	if err != nil {
		return err
	}

	for _, node := range nodes {
		path := `jsonpath={.spec.drivers[?(@.name=="csi.trivet.dev")].name}`
		out, err := p.Cluster.Kubectl(ctx, "", "get", "csinode", node, "-o", path)
		if err != nil {
			return err
		}
		if out == "" {
			return fmt.Errorf("node %s does not have the driver", node)
		}
	}
	return nil
}

// Remove wants all claims of its classes to be gone.
func (p CSI) Remove(ctx context.Context) error {
	if err := p.snapshots().remove(ctx); err != nil {
		return err
	}

	// While the drivers run, they remove their capacity objects.
	_, err := p.Cluster.Kubectl(ctx, "", "delete", "--ignore-not-found",
		"-f", p.Files.manifest("csi", "driver"), "-f", p.Files.manifest("csi", "storageclasses"))
	if err != nil {
		return err
	}
	if err := settle(ctx, "capacity objects", p.withoutCapacities); err != nil {
		return err
	}

	_, err = p.Cluster.Kubectl(ctx, "", "delete", "--ignore-not-found",
		"-f", p.Files.manifest("csi", "daemonset"), "-f", p.Files.manifest("csi", "policy"),
		"-f", p.Files.manifest("csi", "rbac"))
	if err != nil {
		return err
	}
	if err := gone(ctx, p.Cluster, "trivet-csi"); err != nil {
		return err
	}

	err = onEach(ctx, p.Cluster, "pool=/var/lib/trivet/csi/pool; ! mountpoint -q $pool || umount $pool; "+
		"rm -rf /var/lib/trivet/csi /run/trivet/csi /var/lib/kubelet/plugins/csi.trivet.dev "+
		"/var/lib/kubelet/plugins_registry/csi.trivet.dev-reg.sock*")
	if err != nil {
		return err
	}

	_, err = p.Cluster.Kubectl(ctx, "", "annotate", "--overwrite", "storageclass", kindsClass,
		defaultClass+"=true")
	return err
}

func (p CSI) withoutCapacities(ctx context.Context) error {
	out, err := p.Cluster.Kubectl(ctx, "", "get", "csistoragecapacities", "-n", "kube-system", "-o", "name",
		"-l", "topology.csi.trivet.dev/node")
	if err == nil && out != "" {
		err = fmt.Errorf("still there: %s", out)
	}
	return err
}
