package part

import (
	"context"
	"fmt"
	"strings"
)

// CRI is trivet-cri in containerd's place on a node, by the installer of deploy/cri.
type CRI struct {
	Cluster Cluster
	Files   Files
	Node    string

	// Prove is how long its process has to run before it is there for good; "": as deploy has it.
	Prove string
}

func (p CRI) String() string { return "trivet-cri on " + p.Node }

func (p CRI) installer() installer {
	return installer{
		cluster: p.Cluster,
		files:   p.Files,
		node:    p.Node,
		name:    "cri",
		prove:   p.Prove,
	}
}

// Install returns when the node is Ready with it and all its pods run.
func (p CRI) Install(ctx context.Context) error {
	if err := p.installer().install(ctx); err != nil {
		return err
	}
	return p.works(ctx, "trivet-cri")
}

// Installed returns when it is there for good.
func (p CRI) Installed(ctx context.Context) (string, error) {
	return p.installer().isThere(ctx)
}

// Remove returns when the node is Ready with containerd and all its pods run.
func (p CRI) Remove(ctx context.Context) error {
	if err := p.installer().remove(ctx); err != nil {
		return err
	}
	return p.works(ctx, "containerd")
}

// Removed returns when the node has nothing of it any more.
func (p CRI) Removed(ctx context.Context) error { return p.installer().removed(ctx) }

// works waits until the node works with a runtime.
func (p CRI) works(ctx context.Context, name string) error {
	err := settle(ctx, "node "+p.Node, func(ctx context.Context) error {
		const path = `jsonpath={.status.conditions[?(@.type=="Ready")].status}` +
			`{.spec.unschedulable} {.status.nodeInfo.containerRuntimeVersion}`
		out, err := p.Cluster.Kubectl(ctx, "", "get", "node", p.Node, "-o", path)
		if err == nil && !strings.HasPrefix(out, "True "+name+"://") {
			err = fmt.Errorf("it is not Ready and in use with %s: %s", name, out)
		}
		return err
	})
	if err != nil {
		return err
	}

	return podsReady(ctx, p.Cluster, p.Node)
}

// podsReady waits until all pods of the node that have not ended are Ready.
func podsReady(ctx context.Context, c Cluster, node string) error {
	return settle(ctx, "pods of node "+node, func(ctx context.Context) error {
		const path = `jsonpath={range .items[*]}{.metadata.namespace}/{.metadata.name}=` +
			`{.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}`
		out, err := c.Kubectl(ctx, "", "get", "pods", "-A", "-o", path,
			"--field-selector=status.phase!=Succeeded,status.phase!=Failed,spec.nodeName="+node)
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
