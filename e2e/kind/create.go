package kind

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/kind/nodeimage"
)

// Create makes the cluster, unless it is complete. What is there of one that was cut off is deleted first.
func (c *Cluster) Create(ctx context.Context) error {
	there, err := c.there(ctx)
	if err != nil {
		return err
	}

	record, err := ReadRecord(c.Dir)
	if err != nil {
		return err
	}

	if there && record.Complete {
		c.Say("the cluster is there")
		return nil
	}
	if err := c.delete(ctx); err != nil {
		return err
	}

	image, err := c.image(ctx)
	if err != nil {
		return err
	}
	if err := (registry{c}).start(ctx); err != nil {
		return err
	}

	config := c.path("kind.yaml")
	if err := os.WriteFile(config, []byte(c.config()), 0o644); err != nil {
		return err
	}

	c.Say("creating the cluster")
	create := c.Command(ctx, "kind", "create", "cluster", "--config="+config, "--image="+image,
		"--kubeconfig="+c.Kubeconfig(), "--retain")
	create.Stdout, create.Stderr = c.Out, c.Out
	if err := create.Run(); err != nil {
		return fmt.Errorf("kind create cluster: %w (make kind begins again, make kind-down ends it)", err)
	}

	// Pods run on both nodes.
	_, err = c.Kubectl(ctx, "", "taint", "nodes", c.name().controlPlane(),
		"node-role.kubernetes.io/control-plane:NoSchedule-")
	if err != nil {
		return err
	}

	c.Say("the cluster is created")
	record.Complete = true
	return c.write(record)
}

// there reports whether kind knows the cluster.
func (c *Cluster) there(ctx context.Context) (bool, error) {
	out, err := output(c.Command(ctx, "kind", "get", "clusters"))
	return slices.Contains(strings.Fields(out), string(c.name())), err
}

// delete takes away what kind has made.
func (c *Cluster) delete(ctx context.Context) error {
	_, err := output(c.Command(ctx, "kind", "delete", "cluster", "--name="+string(c.name()),
		"--kubeconfig="+c.Kubeconfig()))
	return err
}

// image is the nodes' image, which is made where none is given.
func (c *Cluster) image(ctx context.Context) (string, error) {
	if c.Image != "" {
		return c.Image, nil
	}

	c.Say("making the nodes' image")
	nodes := c.nodes()
	if err := nodes.BuildNode(ctx); err != nil {
		return "", err
	}
	if !c.Trivet {
		return nodeimage.Node, nil
	}
	return nodeimage.Trivet, nodes.BuildTrivet(ctx)
}

// config is the configuration of kind (kind.x-k8s.io/v1alpha4).
func (c *Cluster) config() string {
	var text strings.Builder
	text.WriteString(`kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: ` + string(c.name()) + `
networking:
  disableDefaultCNI: true
  podSubnet: 10.244.0.0/16
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
`)

	if c.Trivet {
		for _, object := range []string{"InitConfiguration", "JoinConfiguration"} {
			fmt.Fprintf(&text, "- |\n  kind: %s\n  nodeRegistration: {criSocket: %q}\n",
				object, nodeimage.CRISocket)
		}
	}

	// A published image lacks what nodeimage has written into its own.
	if c.Image != "" {
		text.WriteString(`containerdConfigPatches:
- |-
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "/etc/containerd/certs.d"
`)
	}

	text.WriteString("nodes:\n")
	for _, role := range []string{"control-plane", "worker"} {
		fmt.Fprintf(&text, "- role: %s\n  extraMounts:\n", role)
		fmt.Fprintf(&text, "  - {hostPath: %q, containerPath: /etc/containerd/certs.d, readOnly: true}\n",
			c.path("certs.d"))
	}
	return text.String()
}
