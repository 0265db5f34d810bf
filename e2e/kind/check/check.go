// Package check tries on a cluster what the demo does not show: ports of hosts, limits of pods that the
// kernel enforces, volumes that grow, and snapshots. It leaves nothing but a namespace that goes.
package check

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"
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

	// Claims says whether there is a provisioner, Snapshots whether there is a snapshot controller, too.
	Claims, Snapshots bool
}

// namespace of all that is made.
const namespace = "checks"

// limit is how long each may take.
const limit = "--timeout=90s"

//go:embed ports.yaml
var ports string

//go:embed limits.yaml
var limits string

//go:embed growth.yaml
var growth string

//go:embed snapshots.yaml
var snapshots string

// Run makes the checks, all at once: they do not disturb each other. What an earlier run has left is removed
// first.
func (c Checks) Run(ctx context.Context) error {
	if err := c.Clean(ctx); err != nil {
		return err
	}
	if _, err := c.Cluster.Kubectl(ctx, "", "create", "namespace", namespace); err != nil {
		return err
	}
	if _, err := c.kubectl(ctx, c.manifests(), "apply", "-f", "-"); err != nil {
		return err
	}

	var group errgroup.Group
	for _, check := range c.all() {
		group.Go(func() error { return check.do(ctx) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return c.leave(ctx)
}

// check is one of them, and its manifest, which is applied for every node.
type check struct {
	manifest string
	do       func(context.Context) error
}

func (c Checks) all() []check {
	all := []check{{ports, c.ports}, {limits, c.limits}}
	if c.Claims {
		all = append(all, check{growth, c.growth})
	}
	if c.Claims && c.Snapshots {
		all = append(all, check{snapshots, c.snapshots})
	}
	return all
}

// Clean returns when nothing is left.
func (c Checks) Clean(ctx context.Context) error {
	_, err := c.Cluster.Kubectl(ctx, "", "delete", "namespace", namespace, "--ignore-not-found", limit)
	return err
}

// leave returns when pods and volumes are gone. The controller-manager looks at the namespace some seconds
// later, for which nobody waits.
func (c Checks) leave(ctx context.Context) error {
	volumes, err := c.kubectl(ctx, "", "get", "persistentvolumeclaims", "-o",
		`jsonpath={range .items[*]}persistentvolume/{.spec.volumeName} {end}`)
	if err != nil {
		return err
	}

	if _, err := c.Cluster.Kubectl(ctx, "", "delete", "namespace", namespace, "--wait=false"); err != nil {
		return err
	}
	kinds := "pods,persistentvolumeclaims"
	if c.Snapshots {
		kinds = "volumesnapshots," + kinds
	}
	if _, err := c.kubectl(ctx, "", "delete", kinds, "--all", limit); err != nil {
		return err
	}
	if strings.TrimSpace(volumes) == "" {
		return nil
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
	var text strings.Builder
	for _, check := range c.all() {
		for _, node := range c.Nodes {
			text.WriteString("---\n" + strings.ReplaceAll(check.manifest, "NODE", node))
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
	_, err := c.kubectl(ctx, "", "wait", "--for=jsonpath={.status.phase}=Failed", limit,
		"pod", "-l", "check=limits")
	if err != nil {
		return fmt.Errorf("pods that take more than their limit: %w", err)
	}

	for _, node := range c.Nodes {
		reason, err := c.kubectl(ctx, "", "get", "pod", "limits-"+node, "-o",
			"jsonpath={.status.containerStatuses[*].state.terminated.reason}")
		if err == nil && reason != "OOMKilled" {
			err = fmt.Errorf("it has ended: %q", reason)
		}
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

	var claims []string
	for _, node := range c.Nodes {
		claims = append(claims, "persistentvolumeclaim/growth-"+node)
	}
	grow := append([]string{"patch", "--patch", `{"spec":{"resources":{"requests":{"storage":"512Mi"}}}}`},
		claims...)
	if _, err := c.kubectl(ctx, "", grow...); err != nil {
		return err
	}

	wait := append([]string{"wait", "--for=jsonpath={.status.capacity.storage}=512Mi", limit}, claims...)
	if _, err := c.kubectl(ctx, "", wait...); err != nil {
		return fmt.Errorf("volumes that were made larger: %w", err)
	}
	return nil
}
