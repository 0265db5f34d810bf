package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/picture"
)

// stepByStep: the steps of a pod's start, the nodes in turns.
func (r *comparison) stepByStep(ctx context.Context) error {
	runtimes := make([]*bench.CRI, len(r.nodes))
	for n, node := range r.nodes {
		runtime, err := bench.DialCRI(r.socketOf(node))
		if err != nil {
			return err
		}
		defer runtime.Close()

		runtimes[n] = runtime
	}

	all := make([][]bench.Steps, len(r.nodes))
	for i := range r.singles {
		for n, node := range r.nodes {
			steps, err := r.Steps(ctx, node.Name, fmt.Sprintf("steps-%d-%d", n, i), runtimes[n])
			if err != nil {
				return err
			}

			all[n] = append(all[n], steps)
		}
	}

	r.title("steps of a pod's start, medians of %d pods on each node in turns", r.singles)
	rows := make([]picture.Row, len(r.nodes))
	for n := range r.nodes {
		rows[n] = rowOf(r.rowName(n), bench.MedianSteps(all[n]))
	}

	r.printRows(rows)

	if r.spansFile == "" {
		return nil
	}

	return writeSpans(r.spansFile, r.singles, rows)
}

// socketOf returns the path of the CRI socket inside a node, as seen from the host.
func (r *comparison) socketOf(node cluster.Node) string {
	pid := r.cluster.Machine(node.Name).Pid()
	return filepath.Join("/proc", strconv.Itoa(pid), "root", node.CRISocket())
}

// rowName is the name of a node's programs in the picture.
func (r *comparison) rowName(n int) string {
	seats := r.nodes[n].Seats
	if seats.Agent == seats.CRI {
		return seats.Agent
	}
	return seats.Agent + " + " + seats.CRI
}

// rowOf is a row of the picture, in milliseconds.
func rowOf(what string, steps bench.Steps) picture.Row {
	row := picture.Row{What: what}
	for i, took := range steps {
		row.Spans = append(row.Spans, picture.Span{
			What: bench.StepNames[i],
			Took: float64(took.Round(100*time.Microsecond).Microseconds()) / 1000,
		})
	}
	return row
}

func (r *comparison) printRows(rows []picture.Row) {
	for i, step := range bench.StepNames {
		fmt.Fprintf(r.out, "  %-18s", step)
		for _, row := range rows {
			fmt.Fprintf(r.out, "%s %6.1f ms;  ", row.What, row.Spans[i].Took)
		}
		fmt.Fprintln(r.out)
	}
}

// writeSpans writes the data of a picture; see e2e/picture.
func writeSpans(file string, pods int, rows []picture.Row) error {
	spans := picture.Spans{
		Title: "From created to Ready: the steps of a pod's start",
		Unit:  "ms",
		Rows:  rows,
		Note: fmt.Sprintf("Medians of %d pods in turns. Sandbox and container as CRI dates them: "+
			"trivet when the call begins, containerd near its end.", pods),
	}

	data, err := json.MarshalIndent(spans, "", "  ")
	if err != nil {
		return err
	}

	return os.WriteFile(file, append(data, '\n'), 0o644)
}
