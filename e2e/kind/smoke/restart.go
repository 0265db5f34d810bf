package smoke

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/kind/part"
)

// reboot is one of all nodes, with that of the host.
type reboot Smoke

// restart stops all nodes and starts them in an order in which each gets the address of another, as it
// happens when a host is rebooted. The pods come back with their volumes, and are reached as before.
func (s reboot) restart(ctx context.Context) (string, error) {
	for _, node := range s.Nodes {
		if _, err := namespace(s).onApp(ctx, node, "echo kept >/data/kv/kept"); err != nil {
			return "", err
		}
	}

	before, err := s.nodeAddresses(ctx)
	if err != nil {
		return "", err
	}

	began := time.Now()
	if err := s.stopAndStart(ctx, before); err != nil {
		return "", err
	}
	took, err := s.ready(ctx, began)
	if err != nil {
		return "", err
	}

	after, err := s.nodeAddresses(ctx)
	if err != nil {
		return "", err
	}
	if err := s.reachedAgain(ctx); err != nil {
		return "", err
	}

	var moves []string
	for _, node := range s.Nodes {
		moves = append(moves, before[node]+" -> "+after[node])
	}
	return fmt.Sprintf("%s, all pods Ready after %.0f s", strings.Join(moves, ", "), took.Seconds()), nil
}

// ready returns when all pods are Ready with containers that started since, and how long that took.
func (s reboot) ready(ctx context.Context, since time.Time) (time.Duration, error) {
	err := until(ctx, func(ctx context.Context) error { return part.IsRestarted(ctx, s.Cluster, since) })
	return time.Since(since), err
}

// afterPowerLoss looks for what restart has looked for last: Docker has started the nodes again by itself.
func (s reboot) afterPowerLoss(ctx context.Context) (string, error) {
	since, err := s.started(ctx)
	if err != nil {
		return "", err
	}

	took, err := s.ready(ctx, since)
	if err != nil {
		return "", err
	}
	if err := s.reachedAgain(ctx); err != nil {
		return "", err
	}
	return fmt.Sprintf("all pods Ready %.0f s after Docker", took.Seconds()), nil
}

// started is when the first of the nodes was started.
func (s reboot) started(ctx context.Context) (time.Time, error) {
	inspect := []string{"inspect", "--format={{.State.Running}} {{.State.StartedAt}}"}
	out, err := s.Cluster.Output(ctx, "", "docker", append(inspect, s.Nodes...)...)
	if err != nil {
		return time.Time{}, err
	}

	var times []time.Time
	for line := range strings.Lines(out) {
		running, at, _ := strings.Cut(strings.TrimSpace(line), " ")
		if started, err := time.Parse(time.RFC3339Nano, at); err == nil && running == "true" {
			times = append(times, started)
		}
	}
	if len(times) < len(s.Nodes) {
		return time.Time{}, fmt.Errorf("nodes %v: running and since when: %q", s.Nodes, out)
	}
	return slices.MinFunc(times, time.Time.Compare), nil
}

// nodeAddresses are the first addresses of the nodes, by name, as the API has them.
func (s reboot) nodeAddresses(ctx context.Context) (map[string]string, error) {
	const path = `{.metadata.name} {.status.addresses[?(@.type=="InternalIP")].address}`
	lines, err := namespace(s).lines(ctx, path, "nodes")
	if err != nil {
		return nil, err
	}

	all := map[string]string{}
	for _, line := range lines {
		if fields := strings.Fields(line); len(fields) > 1 {
			all[fields[0]] = fields[1]
		}
	}
	return all, nil
}

// stopAndStart stops all nodes at once, and starts the one first whose address is not the lowest: Docker
// gives it that.
func (s reboot) stopAndStart(ctx context.Context, addresses map[string]string) error {
	if _, err := s.Cluster.Output(ctx, "", "docker", append([]string{"stop"}, s.Nodes...)...); err != nil {
		return err
	}

	for _, node := range startOrder(s.Nodes, addresses) {
		if _, err := s.Cluster.Output(ctx, "", "docker", "start", node); err != nil {
			return err
		}
	}
	return nil
}

// startOrder puts the node with the lowest address behind the others.
func startOrder(nodes []string, addresses map[string]string) []string {
	lowest := nodes[0]
	for _, node := range nodes {
		a, b := addresses[node], addresses[lowest]
		if len(a) < len(b) || len(a) == len(b) && a < b {
			lowest = node
		}
	}

	var order []string
	for _, node := range nodes {
		if node != lowest {
			order = append(order, node)
		}
	}
	return append(order, lowest)
}

// reachedAgain looks that the volumes are those of before, and that everything is reached as before.
func (s reboot) reachedAgain(ctx context.Context) error {
	for _, node := range s.Nodes {
		if err := s.isKept(ctx, node); err != nil {
			return err
		}
	}

	for _, again := range []func(context.Context) (string, error){
		network(s).addresses,
		network(s).extraPortMappings,
		network(s).throughIngress,
		images(s).localRegistry,
	} {
		if _, err := again(ctx); err != nil {
			return fmt.Errorf("after the start: %w", err)
		}
	}
	return nil
}

// isKept looks at what the volume of a node has. Once, beside much other work, an exec ended well and without
// output soon after the start; why is not known, so the file's size is asked for with its text.
func (s reboot) isKept(ctx context.Context, node string) error {
	ctx, cancel := context.WithTimeout(ctx, settling)
	defer cancel()

	return until(ctx, func(ctx context.Context) error {
		out, err := namespace(s).onApp(ctx, node, "wc -c </data/kv/kept; cat /data/kv/kept")
		if err != nil {
			return err
		}
		if fields := strings.Fields(out); !slices.Equal(fields, []string{"5", "kept"}) {
			return fmt.Errorf("the volume on %s has a file of these bytes and text: %q", node, fields)
		}
		return nil
	})
}
