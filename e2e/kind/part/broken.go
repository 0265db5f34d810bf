package part

import (
	"context"
	"fmt"
	"strings"
)

// Broken is a part that does not work, on a node that has kubelet and containerd: its installer gives the
// node back what it had.
type Broken struct {
	Cluster Cluster
	Files   Files
	Node    string
	Say     func(format string, args ...any)
}

// Run returns when all have been tried, and the node is as before each time.
func (p Broken) Run(ctx context.Context) error {
	before, err := p.traces(ctx)
	if err != nil {
		return err
	}

	for _, try := range []func(context.Context) error{p.tryAgent, p.tryRuntime, p.tryMortal} {
		if err := try(ctx); err != nil {
			return err
		}
		if err := p.isAsBefore(ctx, before); err != nil {
			return err
		}
	}
	return nil
}

// tryAgent is of a program that runs and never becomes ready.
func (p Broken) tryAgent(ctx context.Context) error {
	return p.try(ctx, "node", "trivet-node:broken", "nobody confirmed")
}

// tryRuntime is of a runtime that serves, so that the node is Ready, but whose containers do not start.
func (p Broken) tryRuntime(ctx context.Context) error {
	const config = "/etc/trivet/cri.toml"
	_, err := p.Cluster.OnNode(ctx, p.Node,
		"mkdir -p /etc/trivet; echo 'oci_runtime = \"/bin/false\"' >"+config)
	if err != nil {
		return err
	}
	if err := p.try(ctx, "cri", runtimeImage, "nobody confirmed"); err != nil {
		return err
	}
	_, err = p.Cluster.OnNode(ctx, p.Node, "rm "+config+"; rmdir /etc/trivet 2>/dev/null || true")
	return err
}

const runtimeImage = "trivet-cri:v0.1.0"

// tryMortal is of a runtime that works, so that the node comes into use, and whose processes end after some
// seconds.
func (p Broken) tryMortal(ctx context.Context) error {
	const settings = "/etc/systemd/system/trivet-cri.service.d"
	_, err := p.Cluster.OnNode(ctx, p.Node, "mkdir -p "+settings+
		"; printf '[Service]\\nRuntimeMaxSec=8\\n' >"+settings+"/mortal.conf")
	if err != nil {
		return err
	}
	if err := p.try(ctx, "cri", runtimeImage, "times while the node was in use"); err != nil {
		return err
	}
	_, err = p.Cluster.OnNode(ctx, p.Node, "rm -r "+settings+"; systemctl daemon-reload")
	return err
}

// try puts the part on the node, which is to be taken back for a reason, and takes the label away.
func (p Broken) try(ctx context.Context, name, image, why string) error {
	i := installer{
		cluster: p.Cluster,
		files:   p.Files,
		node:    p.Node,
		name:    name,
	}
	if err := i.apply(ctx); err != nil {
		return err
	}

	patch := fmt.Sprintf(`{"spec": {"template": {"spec": {"containers": [{"name": "installer", "image": %q,
		"command": ["/usr/local/bin/trivet-installer", "attend", "--part=%s", "--ready-timeout=40s"]}]}}}}`,
		image, name)
	_, err := p.Cluster.Kubectl(ctx, "", "-n", "kube-system", "patch", "daemonset", i.daemonset(),
		"-p", patch)
	if err != nil {
		return err
	}
	if err := i.label(ctx); err != nil {
		return err
	}

	said, err := i.await(ctx)
	if err != nil {
		return err
	}
	p.Say("%s", said)
	if !strings.Contains(said, "was taken back") || !strings.Contains(said, why) {
		return fmt.Errorf("a %s that does not work was not taken back because %q: %s", name, why, said)
	}
	if err := i.remove(ctx); err != nil {
		return err
	}
	return i.removed(ctx)
}

// traces are the files of the node that a part may leave, and the services that it may change.
func (p Broken) traces(ctx context.Context) (string, error) {
	return p.Cluster.OnNode(ctx, p.Node, `
		sha256sum /var/lib/kubelet/config.yaml /var/lib/kubelet/instance-config.yaml /etc/crictl.yaml || true
		find /usr/local /etc/systemd /etc/trivet /var/lib/trivet /run/trivet -name '*trivet*' 2>/dev/null |
			grep -v -e kind -e csi -e netd -e metrics | sort || true
		for unit in kubelet containerd trivet-cri trivet-installer-cri trivet-installer-node; do
			systemctl show --property=LoadState,ActiveState,UnitFileState $unit
		done
		readlink "/proc/$(systemctl show --property=MainPID --value kubelet)/exe"`)
}

func (p Broken) isAsBefore(ctx context.Context, before string) error {
	c := CRI{Cluster: p.Cluster, Files: p.Files, Node: p.Node}
	if err := c.works(ctx, "containerd"); err != nil {
		return err
	}

	after, err := p.traces(ctx)
	if err == nil && after != before {
		err = fmt.Errorf("node %s was:\n%s\nand is:\n%s", p.Node, before, after)
	}
	return err
}
