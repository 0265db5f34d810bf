package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// times are what the resizes of a case have taken on a node.
type times struct{ up, down []time.Duration }

func (t *times) add(isUp bool, took time.Duration) {
	if isUp {
		t.up = append(t.up, took)
	} else {
		t.down = append(t.down, took)
	}
}

func newTable(out io.Writer, header string) *tabwriter.Writer {
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, header)
	return w
}

// timeRows adds the rows of a case, ours first.
func (r *comparison) timeRows(w io.Writer, c testCase, all []times) {
	if c.up == c.down {
		var both [][]time.Duration
		for _, t := range all {
			both = append(both, slices.Concat(t.up, t.down))
		}

		r.timeRow(w, c.up, both)
		return
	}

	var up, down [][]time.Duration
	for _, t := range all {
		up, down = append(up, t.up), append(down, t.down)
	}

	r.timeRow(w, c.up, up)
	r.timeRow(w, c.down, down)
}

func (r *comparison) timeRow(w io.Writer, what string, all [][]time.Duration) {
	for i, took := range all {
		f := figure.Of("resize", what, r.sides[i].name, took)
		r.figures.Add(f)
		fmt.Fprintf(w, "%s\t%s\t%.1f\t%.1f\t%.1f\t%s\t\n",
			what, r.sides[i].node, f.Median, f.Min, f.Max, ratio(all[0], took, i))
	}
}

// burstRows adds the rows of many pods at once.
func (r *comparison) burstRows(w io.Writer, all []burstCost) {
	what := fmt.Sprintf("%d pods at once", r.pods)
	for i, b := range all {
		took := figure.Of("resize", what+": all show it", r.sides[i].name, b.took)
		cpu := figure.Of("resize", what+": processor time", r.sides[i].name, b.cpu)
		r.figures.Add(took, cpu)
		fmt.Fprintf(w, "%s\t%.0f\t%.0f\t%s\t%.0f\t%s\t%.1f\t\n",
			r.sides[i].node, took.Median, took.Max, ratio(all[0].took, b.took, i),
			cpu.Median, ratio(all[0].cpu, b.cpu, i), 100*b.idle)
	}
}

// ratio is ours to another's, in the row of the other.
func ratio(ours, other []time.Duration, i int) string {
	if i == 0 {
		return ""
	}
	return fmt.Sprintf("1/%.1f", float64(bench.Median(other))/float64(bench.Median(ours)))
}
