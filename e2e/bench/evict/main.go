// Command evict-bench fills the memory, disks and inodes of a trivet node and of a kubelet node with the same
// pods at the same time, and prints what each of them evicts, in which order, after how long, and what the
// API shows of it.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"sync"

	"k8s.io/client-go/kubernetes"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `evict-bench runs the same pods on a trivet node and a kubelet node of a running cluster, beside
each other, which take more than they may of memory, disks, inodes and process IDs. It prints which of them
were evicted, in which order and after how long, and each difference in what the API shows: soft thresholds,
reclaim of images and dead containers, and what is admitted meanwhile are among the cases. make bench-evict
brings clusters up for it, whose nodes have small disks of their own.`

func main() { program.Tool("evict-bench", run) }

type comparison struct {
	client  kubernetes.Interface
	out     io.Writer
	figures *figure.Writer
	sides   []*side
}

func run(ctx context.Context, env *program.Env) error {
	fs := env.Flags(about)
	dir := fs.String("dir", ".trivet", "directory of the cluster")
	chosen := fs.String("run", "", "regular expression of the names of the cases to run; all by default")
	only := fs.String("only", "", "one side only: trivet or kubelet")
	file := fs.String("json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}

	pattern, err := regexp.Compile(*chosen)
	if err != nil {
		return &program.UsageError{Err: err}
	}

	c := &cluster.Cluster{Dir: *dir, Out: env.Stdout}
	r := &comparison{out: env.Stdout, figures: figure.NewWriter(*file)}
	if r.client, err = bench.Connect(c.Kubeconfig()); err != nil {
		return err
	}

	split, err := r.findSides(c, *only)
	if err != nil {
		return err
	}

	err = r.all(ctx, pattern, split)
	return errors.Join(err, r.restore(context.WithoutCancel(ctx)), r.figures.Close())
}

// findSides takes the first node of each make, or of the only one, and reports whether their images are on a
// disk of their own.
func (r *comparison) findSides(c *cluster.Cluster, only string) (split bool, err error) {
	plan, err := c.Plan()
	if err != nil {
		return false, err
	}

	for _, agent := range []string{"trivet", "kubelet"} {
		if only != "" && agent != only {
			continue
		}

		i := plan.FirstWith(agent)
		if i < 0 || plan.Nodes[i].Disk == 0 {
			return false, &program.CantRunError{
				What: "the cluster does not have a node of each make with a disk of its own",
				Do:   "make up NODES=1 REFERENCE_NODES=1 DISK=1Gi",
			}
		}

		r.sides = append(r.sides, newSide(r.client, c, plan.Nodes[i]))
		split = plan.Nodes[i].ImageDisk > 0
	}

	return split, nil
}

// all runs the chosen cases that fit the nodes' disks.
func (r *comparison) all(ctx context.Context, chosen *regexp.Regexp, split bool) error {
	if err := r.each(func(s *side) error { return s.prepare(ctx) }); err != nil {
		return err
	}

	for _, c := range cases {
		if c.split != split || !chosen.MatchString(c.name) {
			continue
		}

		records, err := r.run(ctx, c)
		if err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}

		report(r.out, c, r.names(), records)
		r.figures.Add(figuresOf(c, r.sides, records)...)
	}

	return nil
}

// run carries out a case on all sides.
func (r *comparison) run(ctx context.Context, c testCase) ([]*record, error) {
	var turn sync.Mutex
	records := make([]*record, len(r.sides))
	err := r.each(func(s *side) (err error) {
		if c.inTurns {
			turn.Lock()
			defer turn.Unlock()
		}

		records[s.index(r.sides)], err = s.run(ctx, c)
		return err
	})

	return records, err
}

// each calls f for all sides at the same time.
func (r *comparison) each(f func(*side) error) error {
	var group sync.WaitGroup
	errs := make([]error, len(r.sides))
	for i, s := range r.sides {
		group.Go(func() {
			if err := f(s); err != nil {
				errs[i] = fmt.Errorf("%s: %w", s.node.Name, err)
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

func (r *comparison) names() []string {
	var names []string
	for _, s := range r.sides {
		names = append(names, s.node.Agent)
	}
	return names
}

func (r *comparison) restore(ctx context.Context) error {
	return r.each(func(s *side) error { return s.restore(ctx) })
}
