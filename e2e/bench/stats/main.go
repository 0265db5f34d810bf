// Command stats-bench measures what CRI's statistics and metrics of a full node and resizes cost, those of
// trivet-cri beside containerd's, in turns. All of it runs on a machine made of namespaces.
package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `stats-bench measures the CRI calls that monitoring and resizes make, of trivet-cri beside
containerd: both have as many pods of one container, on the same network plugin, and are asked in turns, so
that the noise of the host meets both alike. Between two calls there is time enough that nothing is answered
from an earlier reading.`

func main() { program.Main("stats-bench", run) }

type options struct {
	dir, programs, references, images, oci string
	pods, rounds                           int
	json                                   string
}

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}

	var o options
	fs := env.Flags(about)
	fs.StringVar(&o.dir, "dir", ".trivet/stats-bench", "directory for all that it writes; removed in the end")
	fs.StringVar(&o.programs, "programs", "bin", "directory of trivet-cri, trivet-monitor and trivet-images")
	fs.StringVar(&o.references, "references", ".trivet/bin", "directory of containerd and the CNI plugins")
	fs.StringVar(&o.images, "images", ".trivet/images", "OCI layout with the images of the cluster")
	fs.StringVar(&o.oci, "oci-runtime", "crun", "trivet-cri's OCI runtime; containerd's is runc")
	fs.IntVar(&o.pods, "pods", 100, "pods of each")
	fs.IntVar(&o.rounds, "rounds", 15, "calls of each kind")
	fs.StringVar(&o.json, "json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}

	if err := bench.Absolute(&o.dir, &o.programs, &o.references, &o.images); err != nil {
		return err
	}

	return bench.OnMachine(ctx, o.dir, func(m *machine.Machine) error { return o.measure(ctx, env, m) })
}

func (o options) measure(ctx context.Context, env *program.Env, m *machine.Machine) error {
	sides, err := o.boot(ctx, m)
	if err != nil {
		return err
	}
	for _, s := range sides {
		if err := s.fill(ctx, o.pods); err != nil {
			return fmt.Errorf("%s: %w", s.program, err)
		}
	}

	fmt.Fprintf(
		env.Stdout,
		"| %d pods of one container, %d calls each | trivet-cri p50 (min, max) ms | CPU ms | "+
			"containerd ms | CPU ms | ratio of the medians |\n|---|---|---|---|---|---|\n",
		o.pods,
		o.rounds,
	)

	figures := figure.NewWriter(o.json)
	for _, c := range calls {
		if err := o.compare(ctx, env, c, sides, figures); err != nil {
			return err
		}
	}

	return figures.Close()
}

// pause is the time between two calls.
const pause = 300 * time.Millisecond

// compare asks both sides the same in turns.
func (o options) compare(
	ctx context.Context, env *program.Env, c call, sides []*side, figures *figure.Writer,
) error {
	took := map[*side][]time.Duration{}
	ticks := map[*side]int{}
	sizes := map[*side]int{}

	for range c.rounds(o.rounds) {
		for _, s := range sides {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(pause):
			}

			before, start := s.ticks(), time.Now()
			size, err := c.ask(ctx, s)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", s.program, c.name, err)
			}

			took[s] = append(took[s], time.Since(start))
			ticks[s] += s.ticks() - before
			sizes[s] = size
		}
	}

	var cells []any
	for _, s := range sides {
		cpu := float64(ticks[s]) * 10 / float64(len(took[s]))
		figures.Add(figure.Of("stats", c.name, s.name(), took[s]), figure.Figure{
			Bench:  "stats",
			What:   c.name + ": processor time",
			Side:   s.name(),
			Unit:   "ms",
			Median: cpu,
			Count:  len(took[s]),
		})
		cells = append(cells, row(took[s]), cpu)
	}

	ratio := float64(bench.Median(took[sides[1]])) / float64(bench.Median(took[sides[0]]))
	cells = append([]any{c.name, sizes[sides[0]] >> 10, sizes[sides[1]] >> 10}, append(cells, ratio)...)
	fmt.Fprintf(env.Stdout, "| %s (answers of %d and %d KiB) | %s | %.1f | %s | %.1f | 1/%.0f |\n", cells...)
	return nil
}

func row(took []time.Duration) string {
	sorted := slices.Sorted(slices.Values(took))
	at := func(i int) float64 { return float64(sorted[i].Microseconds()) / 1000 }
	return fmt.Sprintf("%.1f (%.1f, %.1f)", at(len(sorted)/2), at(0), at(len(sorted)-1))
}
