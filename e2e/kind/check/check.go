// Package check tries on a cluster what the demo does not show: ports of hosts, limits of pods that the
// kernel enforces, and volumes that grow. It leaves nothing.
package check

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Cluster is what the checks need of a cluster.
type Cluster interface {
	// Kubectl runs kubectl and returns what it prints.
	Kubectl(ctx context.Context, stdin string, args ...string) (string, error)

	// OnNode runs a shell script on a node and returns what it prints.
	OnNode(ctx context.Context, node, script string) (string, error)
}

// Checks are made on one cluster.
type Checks struct {
	Cluster Cluster

	// Nodes are those on which each is made.
	Nodes []string

	// Claims says whether there is a provisioner.
	Claims bool
}

// namespace of all that is made.
const namespace = "checks"

// patience is how long each may take.
const patience = 90 * time.Second

// limit is patience for kubectl.
const limit = "--timeout=90s"

//go:embed ports.yaml
var ports string

//go:embed limits.yaml
var limits string

//go:embed growth.yaml
var growth string

// Run makes the checks. What an earlier run has left is removed first.
func (c Checks) Run(ctx context.Context) error {
	if err := c.clean(ctx); err != nil {
		return err
	}
	if _, err := c.Cluster.Kubectl(ctx, "", "create", "namespace", namespace); err != nil {
		return err
	}

	// All at once: they do not disturb each other.
	if _, err := c.kubectl(ctx, c.manifests(), "apply", "-f", "-"); err != nil {
		return err
	}

	err := errors.Join(c.ports(ctx), c.limits(ctx))
	if c.Claims {
		err = errors.Join(err, c.growth(ctx))
	}
	if err != nil {
		return err
	}
	return c.clean(ctx)
}

// clean returns when nothing is left, volumes included.
func (c Checks) clean(ctx context.Context) error {
	volumes, err := c.kubectl(ctx, "", "get", "persistentvolumeclaims", "-o",
		`jsonpath={range .items[*]}persistentvolume/{.spec.volumeName} {end}`)
	if err != nil {
		return err
	}

	_, err = c.Cluster.Kubectl(ctx, "", "delete", "namespace", namespace, "--ignore-not-found", limit)
	if err != nil || strings.TrimSpace(volumes) == "" {
		return err
	}

	wait := append([]string{"wait", "--for=delete", "--timeout=60s"}, strings.Fields(volumes)...)
	_, err = c.Cluster.Kubectl(ctx, "", wait...)
	return err
}

func (c Checks) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return c.Cluster.Kubectl(ctx, stdin, append([]string{"-n", namespace}, args...)...)
}

// manifests are those of all checks for every node, whose name replaces NODE.
func (c Checks) manifests() string {
	all := []string{ports, limits}
	if c.Claims {
		all = append(all, growth)
	}

	var text strings.Builder
	for _, manifest := range all {
		for _, node := range c.Nodes {
			text.WriteString("---\n" + strings.ReplaceAll(manifest, "NODE", node))
		}
	}
	return text.String()
}

// ports reaches a port of each node from each node.
func (c Checks) ports(ctx context.Context) error {
	_, err := c.kubectl(ctx, "", "wait", "--for=condition=Ready", limit, "pod", "-l", "check=ports")
	if err != nil {
		return err
	}

	for _, to := range c.Nodes {
		address, err := c.kubectl(ctx, "", "get", "pod", "ports-"+to, "-o", "jsonpath={.status.hostIP}")
		if err != nil {
			return err
		}

		for _, from := range c.Nodes {
			url := "http://" + net.JoinHostPort(address, "18080") + "/info"
			script := "curl --silent --show-error --fail --globoff --max-time 5 '" + url + "'"
			out, err := c.Cluster.OnNode(ctx, from, script)
			if err != nil {
				return fmt.Errorf("port of host %s from %s: %w", to, from, err)
			}
			if !strings.Contains(out, "ports-"+to) {
				return fmt.Errorf("port of host %s from %s: another pod answers: %s", to, from, out)
			}
		}
	}
	return nil
}

// limits runs a pod on each node that takes more memory than the pod as a whole may have.
func (c Checks) limits(ctx context.Context) error {
	for _, node := range c.Nodes {
		err := c.until(ctx, func(ctx context.Context) error {
			reason, err := c.kubectl(ctx, "", "get", "pod", "limits-"+node, "-o",
				"jsonpath={.status.phase} {.status.containerStatuses[*].state.terminated.reason}")
			if err == nil && reason != "Failed OOMKilled" {
				err = fmt.Errorf("it is %q", reason)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("pod on %s that takes more than its limit: %w", node, err)
		}
	}
	return nil
}

// growth makes the volume of a running pod larger, on each node.
func (c Checks) growth(ctx context.Context) error {
	_, err := c.kubectl(ctx, "", "wait", "--for=condition=Ready", limit, "pod", "-l", "check=growth")
	if err != nil {
		return err
	}

	for _, node := range c.Nodes {
		_, err := c.kubectl(ctx, "", "patch", "persistentvolumeclaim", "growth-"+node, "--patch",
			`{"spec":{"resources":{"requests":{"storage":"512Mi"}}}}`)
		if err != nil {
			return err
		}
	}

	for _, node := range c.Nodes {
		err := c.until(ctx, func(ctx context.Context) error {
			size, err := c.kubectl(ctx, "", "get", "persistentvolumeclaim", "growth-"+node, "-o",
				"jsonpath={.status.capacity.storage}")
			if err == nil && size != "512Mi" {
				err = fmt.Errorf("it has %s", size)
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("volume on %s that was made larger: %w", node, err)
		}
	}
	return nil
}

// until repeats a look until it finds nothing wrong.
func (c Checks) until(ctx context.Context, look func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	interval := 300 * time.Millisecond
	return retry.Until(ctx, retry.Backoff{First: interval, Max: interval}, look)
}
