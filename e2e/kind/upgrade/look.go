package upgrade

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// patience is how long a cluster may take to settle, limit the same for kubectl.
const (
	patience = 2 * time.Minute
	limit    = "--timeout=2m"
)

// settle looks until nothing is wrong.
func settle(ctx context.Context, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	interval := 500 * time.Millisecond
	return retry.Until(ctx, retry.Backoff{First: interval, Max: interval}, look)
}

// served is the version that the API server says it has.
func (u Upgrade) served(ctx context.Context) (string, error) {
	out, err := u.Cluster.Kubectl(ctx, "", "version", "--output=json")
	if err != nil {
		return "", err
	}

	var answer struct {
		ServerVersion struct{ GitVersion string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		return "", fmt.Errorf("kubectl version: %w", err)
	}
	return answer.ServerVersion.GitVersion, nil
}

// components are the static pods of a control plane.
var components = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}

// planeIs returns when the static pods of the control plane are of a version and Ready, and nothing is left
// of those before them.
func (u Upgrade) planeIs(ctx context.Context, version string) error {
	err := settle(ctx, func(ctx context.Context) error {
		out, err := u.Cluster.Kubectl(ctx, "", "-n", "kube-system", "get", "pods", "-l", "tier=control-plane",
			"-o", `jsonpath={range .items[*]}{.metadata.labels.component} {.spec.containers[0].image} `+
				`{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`)
		if err != nil {
			return err
		}
		return planeIn(out, version)
	})
	if err != nil {
		return err
	}

	now, err := u.served(ctx)
	if err != nil {
		return err
	}
	if now != version {
		return fmt.Errorf("the API server is of %s", now)
	}

	return settle(ctx, func(ctx context.Context) error {
		out, err := u.Cluster.OnNode(ctx, u.ControlPlane, "crictl pods --quiet --label tier=control-plane")
		if n := len(strings.Fields(out)); err == nil && n != len(components) {
			err = fmt.Errorf("%d sandboxes of static pods on %s, want %d", n, u.ControlPlane, len(components))
		}
		return err
	})
}

// planeIn looks at lines with the component, the image and the readiness of a static pod. The version of etcd
// is its own.
func planeIn(lines, version string) error {
	ready := map[string]bool{}
	for line := range strings.Lines(lines) {
		fields := strings.Fields(line)
		if len(fields) != 3 || fields[2] != "True" {
			return fmt.Errorf("not Ready: %s", strings.TrimSpace(line))
		}
		if fields[0] != "etcd" && !strings.HasSuffix(fields[1], ":"+version) {
			return fmt.Errorf("%s is not of %s: %s", fields[0], version, fields[1])
		}
		ready[fields[0]] = true
	}

	for _, name := range components {
		if !ready[name] {
			return fmt.Errorf("there is no static pod %s", name)
		}
	}
	return nil
}

// addonsAre returns when the addons of kubeadm are rolled out, kube-proxy in a version.
func (u Upgrade) addonsAre(version string) func(context.Context) error {
	return func(ctx context.Context) error {
		for _, addon := range []string{"daemonset/kube-proxy", "deployment/coredns"} {
			_, err := u.Cluster.Kubectl(ctx, "", "-n", "kube-system", "rollout", "status", addon, limit)
			if err != nil {
				return err
			}
		}

		image, err := u.Cluster.Kubectl(ctx, "", "-n", "kube-system", "get", "daemonset", "kube-proxy", "-o",
			"jsonpath={.spec.template.spec.containers[0].image}")
		if err == nil && !strings.HasSuffix(image, ":"+version) {
			err = fmt.Errorf("kube-proxy is %s, want %s", image, version)
		}
		return err
	}
}
