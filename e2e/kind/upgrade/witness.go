package upgrade

import (
	"context"
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed witness.yaml
var manifest string

// namespace of the witnesses.
const namespace = "upgrade"

// witnesses are a pod on each node, whose containers run on until the node is drained.
type witnesses struct {
	cluster Cluster
	nodes   []string

	// containers are the ID of each and how often it was restarted, by the node.
	containers map[string]string
}

// start returns when all of them run. What an earlier run has left is removed first.
func (w *witnesses) start(ctx context.Context) error {
	if err := w.clean(ctx); err != nil {
		return err
	}
	if _, err := w.cluster.Kubectl(ctx, "", "create", "namespace", namespace); err != nil {
		return err
	}

	var all strings.Builder
	for _, node := range w.nodes {
		all.WriteString("---\n" + strings.ReplaceAll(manifest, "NODE", node))
	}
	if _, err := w.kubectl(ctx, all.String(), "apply", "-f", "-"); err != nil {
		return err
	}

	_, err := w.kubectl(ctx, "", "wait", "--for=condition=Ready", limit, "pod", "-l", "app=witness")
	if err != nil {
		return err
	}
	w.containers, err = w.look(ctx)
	return err
}

// look are the containers that run.
func (w *witnesses) look(ctx context.Context) (map[string]string, error) {
	const container = ".status.containerStatuses[0]"
	out, err := w.kubectl(ctx, "", "get", "pods", "-o", "jsonpath={range .items[*]}{.metadata.name} {"+
		container+".containerID}, restarted {"+container+".restartCount} times{\"\\n\"}{end}")
	if err != nil {
		return nil, err
	}

	all := map[string]string{}
	for line := range strings.Lines(out) {
		node, state, _ := strings.Cut(strings.TrimSpace(line), " ")
		all[node] = state
	}
	return all, nil
}

// unchanged returns an error if a container is not the one of the start.
func (w *witnesses) unchanged(ctx context.Context) error {
	now, err := w.look(ctx)
	if err != nil {
		return err
	}

	for _, node := range w.nodes {
		if now[node] != w.containers[node] {
			return fmt.Errorf("the witness on %s is %q, was %q", node, now[node], w.containers[node])
		}
	}

	// They are alive, and not only shown to be.
	_, err = w.kubectl(ctx, "", "wait", "--for=condition=Ready", limit, "pod", "-l", "app=witness")
	return err
}

// forget leaves out the witness of a node that is drained.
func (w *witnesses) forget(node string) {
	w.nodes = slices.DeleteFunc(w.nodes, func(n string) bool { return n == node })
}

// clean returns when nothing is left of them.
func (w *witnesses) clean(ctx context.Context) error {
	_, err := w.cluster.Kubectl(ctx, "", "delete", "namespace", namespace, "--ignore-not-found", limit)
	return err
}

func (w *witnesses) kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	return w.cluster.Kubectl(ctx, stdin, append([]string{"-n", namespace}, args...)...)
}
