package main

import (
	"context"
	"fmt"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/retry"
)

// cost is what the scrapes of one endpoint have taken on one node.
type cost struct {
	// cpu is the processor time of the daemons for each scrape, beyond what they use anyway.
	cpu  []time.Duration
	took []time.Duration

	// plain and sent are bytes of the last answer, as text and as the node has sent it.
	plain, sent int
}

// settle is how long a daemon may go on with a scrape after it has answered.
const settle = 100 * time.Millisecond

// idle measures how much of a processor the daemons of each node use when nobody asks, as a share.
func (r *comparison) idle(ctx context.Context) ([]float64, error) {
	return r.shares(func() error { return retry.Sleep(ctx, r.quiet) })
}

// shares is how much of a processor the daemons of each node use while something is done.
func (r *comparison) shares(do func() error) ([]float64, error) {
	start := time.Now()
	before := make([]time.Duration, len(r.targets))
	for i, t := range r.targets {
		t.findDaemons()
		before[i] = t.cpu()
	}

	if err := do(); err != nil {
		return nil, err
	}

	elapsed := time.Since(start)
	shares := make([]float64, len(r.targets))
	for i, t := range r.targets {
		shares[i] = float64(t.cpu()-before[i]) / float64(elapsed)
	}

	return shares, nil
}

// costs scrapes one endpoint of both nodes at each interval, in turns. idle is what the daemons use anyway.
func (r *comparison) costs(ctx context.Context, path string, idle []float64) ([]cost, error) {
	all := make([]cost, len(r.targets))
	start := time.Now()
	for round := range r.rounds {
		for n := range r.targets {
			i := (n + round) % len(r.targets)
			if err := r.once(ctx, r.targets[i], path, idle[i], &all[i]); err != nil {
				return nil, err
			}
		}

		if err := retry.Sleep(ctx, time.Until(start.Add(time.Duration(round+1)*r.interval))); err != nil {
			return nil, err
		}
	}

	return all, nil
}

// once scrapes and adds to the costs.
func (r *comparison) once(ctx context.Context, t *target, path string, idle float64, c *cost) error {
	start, before := time.Now(), t.cpu()
	a, err := t.scrape(ctx, path)
	if err != nil {
		return err
	}
	if err := retry.Sleep(ctx, settle); err != nil {
		return err
	}

	c.cpu = append(c.cpu, t.cpu()-before-time.Duration(idle*float64(time.Since(start))))
	c.took = append(c.took, a.took)
	c.plain, c.sent = len(a.text), a.sent
	return nil
}

// scrapes measures all endpoints and prints their table.
func (r *comparison) scrapes(ctx context.Context) error {
	idle, err := r.idle(ctx)
	if err != nil {
		return err
	}

	r.shareFigures("processor time of agent and runtime, nobody asks", idle)
	fmt.Fprintf(
		r.out,
		"\nmedians of %d scrapes of each, one every %s; CPU: of agent and runtime, beyond the above\n",
		r.rounds,
		r.interval,
	)

	w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "endpoint\tnode\tCPU ms\tp50 ms\tmax ms\tKiB\tgzip KiB\tCPU ratio\t")
	for _, path := range endpoints {
		all, err := r.costs(ctx, path, idle)
		if err != nil {
			return err
		}

		for i, c := range all {
			fmt.Fprintf(w, "%s\t%s\t%.2f\t%.1f\t%.1f\t%.0f\t%.0f\t%s\t\n", path, r.targets[i].name,
				inMilliseconds(bench.Median(c.cpu)), inMilliseconds(bench.Median(c.took)),
				inMilliseconds(slices.Max(c.took)), float64(c.plain)/1024, float64(c.sent)/1024,
				ratioOf(bench.Median(all[0].cpu), bench.Median(c.cpu), i))

			r.costFigures(path, r.targets[i].side, c)
		}
	}

	return w.Flush()
}

// ratioOf is ours to another's, in the row of the other.
func ratioOf(ours, other time.Duration, i int) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("%.2f", float64(ours)/float64(other))
}

func inMilliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// watched is what the daemons use while a monitoring system asks as usual: all endpoints every 15 seconds.
func (r *comparison) watched(ctx context.Context) error {
	const every = 15 * time.Second
	start := time.Now()
	shares, err := r.shares(func() error {
		for round := range int(r.quiet / every) {
			if err := r.askAll(ctx); err != nil {
				return err
			}
			if err := retry.Sleep(ctx, time.Until(start.Add(time.Duration(round+1)*every))); err != nil {
				return err
			}
		}

		return nil
	})
	if err != nil {
		return err
	}

	r.shareFigures("processor time of agent and runtime, all endpoints every 15 s", shares)
	return nil
}

// askAll scrapes all endpoints of both nodes.
func (r *comparison) askAll(ctx context.Context) error {
	for _, t := range r.targets {
		for _, path := range endpoints {
			if _, err := t.scrape(ctx, path); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *comparison) shareFigures(what string, shares []float64) {
	fmt.Fprintf(r.out, "\n%s:", what)
	for i, t := range r.targets {
		fmt.Fprintf(r.out, " %s %.2f %%;", t.name, 100*shares[i])
		r.figures.Add(figure.Figure{
			Bench:  "scrape",
			What:   what,
			Side:   t.side,
			Unit:   "%",
			Median: rounded(100 * shares[i]),
		})
	}

	fmt.Fprintf(r.out, " ratio %.2f\n", shares[0]/shares[len(shares)-1])
}

func (r *comparison) costFigures(path, side string, c cost) {
	of := func(what, unit string, value float64) figure.Figure {
		return figure.Figure{
			Bench:  "scrape",
			What:   path + ": " + what,
			Side:   side,
			Unit:   unit,
			Median: rounded(value),
			Count:  len(c.took),
		}
	}

	r.figures.Add(
		figure.Of("scrape", path+": processor time", side, c.cpu),
		figure.Of("scrape", path+": latency", side, c.took),
		of("size", "KiB", float64(c.plain)/1024),
		of("size, compressed", "KiB", float64(c.sent)/1024),
	)
}

// rounded has two digits after the point, as durations in figures have.
func rounded(v float64) float64 { return float64(int64(100*v+0.5)) / 100 }
