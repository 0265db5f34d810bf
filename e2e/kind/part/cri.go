package part

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
)

// CRI is trivet-cri in containerd's place on a node, by hand: the node's pods are made again.
type CRI struct {
	Cluster Cluster
	Files   Files
	Node    string
}

func (p CRI) String() string { return "trivet-cri on " + p.Node }

// The sockets of the two.
const (
	ours   = "unix:///run/trivet/cri.sock"
	theirs = "unix:///run/containerd/containerd.sock"
)

// Install returns when the node is Ready with it and all its pods run.
func (p CRI) Install(ctx context.Context) error {
	if now, err := p.runtime(ctx); err != nil || now == "trivet-cri" {
		return err
	}

	for _, name := range []string{"trivet-cri", "trivet-monitor"} {
		if err := p.Cluster.Copy(ctx, p.Node, p.Files.program(name), "/usr/local/bin/"+name); err != nil {
			return err
		}
	}

	unit := filepath.Join(p.Files.Deploy, "cri", "trivet-cri.service")
	if err := p.Cluster.Copy(ctx, p.Node, unit, "/etc/systemd/system/trivet-cri.service"); err != nil {
		return err
	}
	if err := p.leave(ctx, "containerd", theirs); err != nil {
		return err
	}

	_, err := p.Cluster.OnNode(ctx, p.Node, `
		systemctl disable --now containerd
		mkdir -p /etc/trivet
		echo 'cgroup_driver = "systemd"' >/etc/trivet/cri.toml
		systemctl daemon-reload
		systemctl enable --now trivet-cri`)
	if err != nil {
		return err
	}

	return p.enter(ctx, ours, "trivet-cri")
}

// Remove returns when the node is Ready with containerd and all its pods run.
func (p CRI) Remove(ctx context.Context) error {
	if now, err := p.runtime(ctx); err != nil || now == "containerd" {
		return err
	}
	if err := p.leave(ctx, "trivet-cri", ours); err != nil {
		return err
	}

	// The first one ends the server and the monitor; the unit would start them again.
	_, err := p.Cluster.OnNode(ctx, p.Node, `
		if [ -e /etc/systemd/system/trivet-cri.service ]; then
			systemctl disable --now trivet-cri
			trivet-cri --shutdown
		fi
		rm -rf /etc/systemd/system/trivet-cri.service /etc/trivet /var/lib/trivet/cri \
			/run/trivet/cri* /run/trivet/monitor* /run/trivet/metrics/trivet-cri.sock \
			/usr/local/bin/trivet-cri /usr/local/bin/trivet-monitor
		systemctl daemon-reload
		systemctl enable --now containerd`)
	if err != nil {
		return err
	}

	return p.enter(ctx, theirs, "containerd")
}

// runtime is the name of the runtime with which the node is Ready; "" when it is not.
func (p CRI) runtime(ctx context.Context) (string, error) {
	const path = `jsonpath={.status.conditions[?(@.type=="Ready")].status} ` +
		`{.spec.unschedulable} {.status.nodeInfo.containerRuntimeVersion}`
	out, err := p.Cluster.Kubectl(ctx, "", "get", "node", p.Node, "-o", path)
	if err != nil {
		return "", err
	}

	fields := strings.Fields(out)
	if len(fields) != 2 || fields[0] != "True" {
		return "", nil
	}

	name, _, _ := strings.Cut(fields[1], "://")
	return name, nil
}

// leave stops the agent and removes all pods from the runtime that is a unit and has the socket, if it runs.
// The node takes no new pods.
func (p CRI) leave(ctx context.Context, unit, socket string) error {
	if _, err := p.Cluster.Kubectl(ctx, "", "cordon", p.Node); err != nil {
		return err
	}

	// Some seconds for each pod: crictl's own limit of two leaves sandboxes.
	_, err := p.Cluster.OnNode(ctx, p.Node, fmt.Sprintf(`
		systemctl stop kubelet
		if systemctl --quiet is-active %s; then
			crictl --runtime-endpoint=%s --timeout=60s rmp --all --force
		fi`, unit, socket))
	return err
}

// enter starts the agent with the runtime at the socket.
func (p CRI) enter(ctx context.Context, socket, name string) error {
	_, err := p.Cluster.OnNode(ctx, p.Node, fmt.Sprintf(`
		for file in /var/lib/kubelet/config.yaml /var/lib/kubelet/instance-config.yaml; do
			[ ! -e $file ] || sed -i 's#^containerRuntimeEndpoint:.*#containerRuntimeEndpoint: %[1]s#' $file
		done
		grep -q '^containerRuntimeEndpoint: %[1]s' /var/lib/kubelet/config.yaml
		echo 'runtime-endpoint: %[1]s' >/etc/crictl.yaml
		systemctl start kubelet`, socket))
	if err != nil {
		return err
	}
	if _, err := p.Cluster.Kubectl(ctx, "", "uncordon", p.Node); err != nil {
		return err
	}

	err = settle(ctx, "node "+p.Node, func(ctx context.Context) error {
		now, err := p.runtime(ctx)
		if err == nil && now != name {
			err = fmt.Errorf("it is not Ready with %s", name)
		}
		return err
	})
	if err != nil {
		return err
	}

	return podsReady(ctx, p.Cluster, p.Node)
}

// podsReady waits until all pods of the node are Ready.
func podsReady(ctx context.Context, c Cluster, node string) error {
	return settle(ctx, "pods of node "+node, func(ctx context.Context) error {
		const path = `jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}=` +
			`{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`
		out, err := c.Kubectl(ctx, "", "get", "pods", "-A", "-o", path,
			"--field-selector=spec.nodeName="+node)
		if err != nil {
			return err
		}

		for pod := range strings.Lines(out) {
			if pod = strings.TrimSpace(pod); !strings.HasSuffix(pod, "=True") {
				return fmt.Errorf("not Ready: %s", pod)
			}
		}
		return nil
	})
}
