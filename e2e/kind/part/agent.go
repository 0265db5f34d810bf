package part

import (
	"context"
	"fmt"
	"strings"
)

// Agent is trivet-node in kubelet's place on a node, under running pods, by the installer of deploy/node.
type Agent struct {
	Cluster Cluster
	Files   Files
	Node    string

	// Prove is how long its process has to run before it is there for good; "": as deploy has it.
	Prove string
}

func (p Agent) String() string { return "trivet-node on " + p.Node }

func (p Agent) installer() installer {
	return installer{
		cluster: p.Cluster,
		files:   p.Files,
		node:    p.Node,
		name:    "node",
		prove:   p.Prove,
	}
}

// Install returns when the agent works. Containers that were restarted are an error.
func (p Agent) Install(ctx context.Context) error {
	return p.exchange(ctx, "/usr/local/bin/trivet-node", p.installer().install)
}

// Installed returns when it is there for good.
func (p Agent) Installed(ctx context.Context) (string, error) {
	return p.installer().isThere(ctx)
}

// Remove returns when kubelet works. Containers that were restarted are an error.
func (p Agent) Remove(ctx context.Context) error {
	return p.exchange(ctx, "/usr/bin/kubelet", p.installer().remove)
}

// Removed returns when the node has nothing of it any more.
func (p Agent) Removed(ctx context.Context) error { return p.installer().removed(ctx) }

// exchange changes the agent, and waits until a program is the agent of the node, and works.
func (p Agent) exchange(ctx context.Context, program string, change func(context.Context) error) error {
	before, err := p.restarts(ctx)
	if err != nil {
		return err
	}
	if err := change(ctx); err != nil {
		return err
	}

	err = settle(ctx, "agent of node "+p.Node, func(ctx context.Context) error {
		_, err := p.Cluster.OnNode(ctx, p.Node, `
			pid=$(systemctl show --property=MainPID --value kubelet)
			[ "$(readlink "/proc/$pid/exe")" = `+program+` ]
			curl --silent --show-error --fail --max-time 5 http://127.0.0.1:10248/healthz`)
		return err
	})
	if err != nil {
		return err
	}

	_, err = p.Cluster.Kubectl(ctx, "", "wait", "--for=condition=Ready", "node/"+p.Node, limit)
	if err != nil {
		return err
	}
	if err := podsReady(ctx, p.Cluster, p.Node); err != nil {
		return err
	}

	after, err := p.restarts(ctx)
	if err != nil {
		return err
	}

	for container, state := range before {
		// The installer itself comes and goes.
		if after[container] != state && !strings.Contains(container, "/"+p.installer().daemonset()) {
			return fmt.Errorf("container %s of node %s was %s, is %s",
				container, p.Node, state, after[container])
		}
	}
	return nil
}

// restarts are the IDs of the containers on the node, by the names of pod and container.
func (p Agent) restarts(ctx context.Context) (map[string]string, error) {
	const path = `jsonpath={range .items[*]}{range .status.containerStatuses[*]}{.name}@{.containerID} ` +
		`{end}{.metadata.namespace}/{.metadata.name}{"\n"}{end}`
	var out string
	err := settle(ctx, "API server", func(ctx context.Context) (err error) {
		out, err = p.Cluster.Kubectl(ctx, "", "get", "pods", "-A", "-o", path,
			"--field-selector=spec.nodeName="+p.Node)
		return err
	})
	if err != nil {
		return nil, err
	}

	ids := map[string]string{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		for i := range len(fields) - 1 {
			name, id, _ := strings.Cut(fields[i], "@")
			ids[fields[len(fields)-1]+"/"+name] = id
		}
	}
	return ids, nil
}
