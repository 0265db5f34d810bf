// Command resize-bench resizes pods in place on a trivet node and on a kubelet node: how long it takes from
// the resize being patched until the pod's status shows it, and what it takes of the processor.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `resize-bench resizes the same pods in place on two nodes of a running cluster, one of trivet
and one of kubelet + containerd + runc, in turns: processor, memory up and down, resources of the pod, a
container that is restarted for it, and many pods at once. A resize is there when the pod's status shows the
new resources as allocated and in force, without a condition of a resize, for the generation that asked for
it. make bench-resize brings the cluster up for it.`

func main() { program.Tool("resize-bench", run) }

type comparison struct {
	out     io.Writer
	figures *figure.Writer
	sides   []*side

	// rounds is how often each case goes up and down on each node.
	rounds int

	// pods are resized at once, bursts times on each node.
	pods, bursts int
}

// The namespace of all pods, and their image.
const (
	namespace = "resize"
	image     = "registry.k8s.io/pause:3.10.2"
)

func run(ctx context.Context, env *program.Env) error {
	r := &comparison{out: env.Stdout}
	fs := env.Flags(about)
	dir := fs.String("dir", ".trivet", "directory of the cluster")
	chosen := fs.String("run", "", "regular expression of the names of the cases to run; all by default")
	only := fs.String("only", "", "one node only: trivet or kubelet")
	fs.IntVar(&r.rounds, "rounds", 11, "resizes up and down of each case on each node")
	fs.IntVar(&r.pods, "pods", 100, "pods that are resized at once")
	fs.IntVar(&r.bursts, "bursts", 3, "how often that is done on each node; not at all with 0")
	file := fs.String("json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}

	pattern, err := regexp.Compile(*chosen)
	if err != nil {
		return &program.UsageError{Err: err}
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}

	r.figures = figure.NewWriter(*file)
	c := &cluster.Cluster{Dir: *dir, Out: env.Stdout}
	if err := r.connect(c, *only); err != nil {
		return err
	}

	clean := r.sides[0].Clean
	return errors.Join(r.all(ctx, pattern), clean(context.WithoutCancel(ctx)), r.figures.Close())
}

// connect takes the first node of each make, or of the only one.
func (r *comparison) connect(c *cluster.Cluster, only string) error {
	plan, err := c.Plan()
	if err != nil {
		return err
	}

	client, err := bench.Connect(c.Kubeconfig())
	if err != nil {
		return err
	}

	names := map[string]string{"trivet": figure.Ours, "kubelet": "kubelet+containerd"}
	for _, agent := range []string{"trivet", "kubelet"} {
		if only != "" && only != agent {
			continue
		}

		i := plan.FirstWith(agent)
		if i < 0 {
			return &program.CantRunError{
				What: "the cluster does not have a node of each make",
				Do:   "make up NODES=1 REFERENCE_NODES=1",
			}
		}

		node := plan.Nodes[i].Name
		r.sides = append(r.sides, &side{
			Bench:   bench.Bench{Client: client, Namespace: namespace, Image: image},
			node:    node,
			name:    names[agent],
			machine: c.Machine(node),
		})
	}

	return nil
}

func (r *comparison) all(ctx context.Context, chosen *regexp.Regexp) error {
	for _, s := range r.sides {
		if err := s.Prepare(ctx, []string{s.node}); err != nil {
			return err
		}
	}

	if err := r.oneByOne(ctx, chosen); err != nil {
		return err
	}

	return r.atOnce(ctx, chosen)
}

// oneByOne measures the cases.
func (r *comparison) oneByOne(ctx context.Context, chosen *regexp.Regexp) error {
	fmt.Fprintf(
		r.out,
		"from a resize being patched until the status shows it, one pod, %d rounds\n",
		r.rounds,
	)

	w := newTable(r.out, "resize\tnode\tp50 ms\tmin ms\tmax ms\tratio\t")
	for _, c := range cases {
		if !chosen.MatchString(c.name) {
			continue
		}

		took, err := r.rounded(ctx, c)
		if err != nil {
			return errors.Join(w.Flush(), fmt.Errorf("%s: %w", c.name, err))
		}

		r.timeRows(w, c, took)
	}

	return w.Flush()
}

// maxRestarts is how many rounds a pod may be restarted twice in: a kubelet counts these restarts, too, and
// then waits for minutes with the next one (CrashLoopBackOff).
const maxRestarts = 1

// rounded resizes a pod of a case on each node up and down, the nodes in turns.
func (r *comparison) rounded(ctx context.Context, c testCase) ([]times, error) {
	all := make([]times, len(r.sides))
	for _, s := range r.sides {
		if err := s.start(ctx, c, []string{s.podOf(c)}); err != nil {
			return nil, err
		}
	}

	rounds := r.rounds
	if c.restarts {
		rounds = min(rounds, maxRestarts)
	}

	for round := range rounds {
		for n := range r.sides {
			i := (n + round) % len(r.sides)
			s := r.sides[i]
			for _, isUp := range []bool{true, false} {
				took, err := s.resize(ctx, c, []string{s.podOf(c)}, isUp)
				if err != nil {
					return nil, fmt.Errorf("round %d on %s: %w", round, s.node, err)
				}

				all[i].add(isUp, took)
			}
		}
	}

	for _, s := range r.sides {
		if err := s.Stop(ctx, []string{s.podOf(c)}); err != nil {
			return nil, err
		}
	}

	return all, nil
}

// atOnce resizes many pods at once, which are there on one node at a time.
func (r *comparison) atOnce(ctx context.Context, chosen *regexp.Regexp) error {
	c := burst
	if r.bursts == 0 || !chosen.MatchString(c.name) {
		return nil
	}

	all := make([]burstCost, len(r.sides))
	for i, s := range r.sides {
		var err error
		if all[i], err = s.burst(ctx, c, r.pods, r.bursts); err != nil {
			return fmt.Errorf("%s on %s: %w", c.name, s.node, err)
		}
	}

	fmt.Fprintf(
		r.out,
		"\n%d pods resized at once, %d times; CPU: of agent and runtime with the programs that "+
			"they run,\nbeyond what they use anyway\n",
		r.pods,
		r.bursts,
	)

	w := newTable(r.out, "node\tall show it, p50 ms\tmax ms\tratio\tCPU ms\tratio\tidle CPU %\t")
	r.burstRows(w, all)
	return w.Flush()
}
