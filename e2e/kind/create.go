package kind

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/trivet-node/trivet/e2e/kind/nodeimage"
	"github.com/trivet-node/trivet/e2e/kind/smoke"
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

	image, err := prepare(ctx, c)
	if err != nil {
		return err
	}

	if err := os.MkdirAll(c.path(sharedDir), 0o755); err != nil {
		return err
	}

	file := c.path("kind.yaml")
	if err := os.WriteFile(file, []byte(config{c}.text()), 0o644); err != nil {
		return err
	}

	c.Say("creating the cluster")
	create := c.Command(ctx, "kind", "create", "cluster", "--config="+file, "--image="+image,
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

// prepare makes the nodes' image, and has the registry run beside it.
func prepare(ctx context.Context, c *Cluster) (image string, err error) {
	var group errgroup.Group
	group.Go(func() (err error) {
		image, err = c.image(ctx)
		return err
	})
	group.Go(func() error { return registry{c}.start(ctx) })
	err = group.Wait()
	return image, err
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
	if c.Trivet {
		return nodeimage.Trivet, nodes.BuildTrivet(ctx)
	}
	return nodeimage.Node, nodes.BuildNode(ctx)
}

// sharedDir is a directory of the host that all nodes see.
const sharedDir = "shared"

// config is kind's configuration of a cluster (kind.x-k8s.io/v1alpha4).
type config struct{ cluster *Cluster }

func (o config) text() string {
	c := o.cluster

	var text strings.Builder
	text.WriteString(`kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
name: ` + string(c.name()) + `
networking:
  disableDefaultCNI: true
  ipFamily: ` + string(c.Family.OrDefault()) + `
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

	text.WriteString("nodes:\n- role: control-plane\n")
	text.WriteString(o.published())
	text.WriteString(o.mounted())
	text.WriteString("- role: worker\n")
	text.WriteString(o.mounted())
	return text.String()
}

// published has what kind's documents say of ingress: a label for the controller, and ports of the host,
// which kind chooses; and a NodePort of smoke's.
func (o config) published() string {
	var text strings.Builder
	text.WriteString("  labels: {ingress-ready: \"true\"}\n  extraPortMappings:\n")
	for _, port := range []int{smoke.IngressPort, smoke.NodePort} {
		fmt.Fprintf(&text, "  - {containerPort: %d, listenAddress: %q}\n", port, o.cluster.Family.Loopback())
	}
	return text.String()
}

// mounted are the directories of the host that a node sees.
func (o config) mounted() string {
	return fmt.Sprintf("  extraMounts:\n"+
		"  - {hostPath: %q, containerPath: /etc/containerd/certs.d, readOnly: true}\n"+
		"  - {hostPath: %q, containerPath: %q}\n",
		o.cluster.path("certs.d"), o.cluster.path(sharedDir), smoke.SharedMount)
}
