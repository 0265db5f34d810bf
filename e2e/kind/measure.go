package kind

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
)

// Comparison measures the nodes of a cluster side by side, whatever they have in their seats: in turns, so
// that the noise of the machine meets both alike.
type Comparison struct {
	Cluster *Cluster

	// Rounds is how many pods are measured on each node.
	Rounds int
}

// pause is the image of the pods: its process ends at once on SIGTERM.
const pause = "registry.k8s.io/pause:3.10.2"

// result is what was measured on one node.
type result struct {
	node, seats  string
	ready, gone  []time.Duration
	proportional string
}

// Run measures and prints.
func (o Comparison) Run(ctx context.Context) error {
	client, err := bench.Connect(o.Cluster.Kubeconfig())
	if err != nil {
		return err
	}

	b := &bench.Bench{Client: client, Namespace: "bench", Image: pause}
	results, err := o.measure(ctx, b)
	return errors.Join(err, b.Clean(context.WithoutCancel(ctx)), o.print(results))
}

func (o Comparison) measure(ctx context.Context, b *bench.Bench) ([]result, error) {
	nodes := o.Cluster.name().nodes()
	if err := b.Prepare(ctx, nodes); err != nil {
		return nil, err
	}

	results := make([]result, len(nodes))
	for i, node := range nodes {
		seats, err := o.seats(ctx, node)
		if err != nil {
			return nil, err
		}

		results[i] = result{node: node, seats: seats}
	}

	for round := range o.Rounds {
		for i, node := range nodes {
			sample, err := b.One(ctx, node, fmt.Sprintf("one-%d-%d", i, round))
			if err != nil {
				return nil, err
			}

			results[i].ready = append(results[i].ready, sample.ToReady)
			results[i].gone = append(results[i].gone, sample.ToGone)
		}
	}

	for i, node := range nodes {
		memory, err := o.Cluster.OnNode(ctx, node, memoryOfDaemons)
		if err != nil {
			return nil, err
		}

		results[i].proportional = strings.TrimSpace(memory)
	}
	return results, nil
}

// seats says what runs as agent and runtime of a node.
func (o Comparison) seats(ctx context.Context, node string) (string, error) {
	out, err := o.Cluster.OnNode(ctx, node, `
		agent=$(readlink "/proc/$(systemctl show --property=MainPID --value kubelet)/exe")
		echo "${agent##*/}"`)
	if err != nil {
		return "", err
	}

	runtime, err := o.Cluster.Kubectl(ctx, "", "get", "node", node, "-o",
		"jsonpath={.status.nodeInfo.containerRuntimeVersion}")
	return strings.TrimSpace(out) + ", " + runtime, err
}

// memoryOfDaemons prints the proportional set size of a node's agent, runtime and what that keeps for its
// containers, in MiB.
const memoryOfDaemons = `
	for pid in /proc/[0-9]*; do
		program=$(readlink $pid/exe || true)
		case ${program##*/} in
		kubelet | containerd | containerd-shim-runc-v2 | trivet-node | trivet-cri | trivet-monitor)
			cat $pid/smaps_rollup 2>/dev/null || true ;;
		esac
	done | awk '/^Pss:/ { kib += $2 } END { printf "%d MiB\n", kib / 1024 }'`

func (o Comparison) print(results []result) error {
	if len(results) == 0 {
		return nil
	}

	w := tabwriter.NewWriter(o.Cluster.Out, 0, 8, 2, ' ', 0)
	fmt.Fprintf(w, "NODE\tSEATS\tCREATED -> READY\tDELETED -> GONE\tMEMORY\n")
	for _, r := range results {
		ready, gone := bench.Median(r.ready), bench.Median(r.gone)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.node, r.seats,
			ready.Round(time.Millisecond), gone.Round(time.Millisecond), r.proportional)
	}
	return w.Flush()
}
