package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/picture"
	"github.com/trivet-node/trivet/internal/trace/receiver"
)

// tracer starts pods and finds their spans.
type tracer struct {
	*bench.Bench
	received *receiver.Receiver
	out      io.Writer
}

// start is one pod's start, with its spans.
type start struct {
	what  string
	pod   bench.Traced
	spans []receiver.Span
}

// starts returns the median start on each node.
func (t tracer) starts(ctx context.Context, nodes []cluster.Node, pods int) ([]start, error) {
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
	}

	if err := t.Prepare(ctx, names); err != nil {
		return nil, err
	}

	all := make([][]bench.Traced, len(nodes))
	for i := range pods {
		for n, node := range nodes {
			one, err := t.Traced(ctx, node.Name, fmt.Sprintf("trace-%d-%d", n, i))
			if err != nil {
				return nil, err
			}

			all[n] = append(all[n], one)
		}
	}

	var out []start
	for n, node := range nodes {
		took := func(x bench.Traced) time.Duration { return x.Ready.Sub(x.Created) }
		slices.SortFunc(all[n], func(a, b bench.Traced) int { return cmp.Compare(took(a), took(b)) })
		median := all[n][len(all[n])/2]

		spans, err := t.spansOf(ctx, median)
		if err != nil {
			return nil, err
		}

		out = append(out, start{
			what:  node.Agent + " + " + node.CRI,
			pod:   median,
			spans: spans,
		})
	}

	return out, nil
}

// sendLimit is how long programs may take to send the spans of a pod that is Ready.
const sendLimit = 15 * time.Second

// spansOf returns the spans of the traces of which one names the pod, from those of its start. Programs send
// spans some time after they have ended.
func (t tracer) spansOf(ctx context.Context, pod bench.Traced) ([]receiver.Span, error) {
	ctx, cancel := context.WithTimeout(ctx, sendLimit)
	defer cancel()

	// The last spans are sent within seconds, by several programs: nobody knows which is the last.
	spans, _ := t.received.Await(ctx, func([]receiver.Span) bool { return false })
	out := ofPod(spans, pod)
	if len(out) == 0 {
		return nil, fmt.Errorf("no span of pod %s was received in %v", pod.Name, sendLimit)
	}
	return out, nil
}

// ofPod chooses the spans of the traces of a pod that began during its start.
func ofPod(spans []receiver.Span, pod bench.Traced) []receiver.Span {
	traces := map[string]bool{}
	for _, s := range spans {
		for _, key := range []string{"k8s.pod.uid", "k8s.pod.name", "k8s.pod"} {
			value := s.Attributes[key]
			if value != "" && (value == pod.UID || value == pod.Name) {
				traces[s.Trace] = true
			}
		}
	}

	return slices.DeleteFunc(slices.Clone(spans), func(s receiver.Span) bool {
		return !traces[s.Trace] || s.Began.After(pod.Ready) || s.Ended.Before(pod.Created)
	})
}

// write prints the starts and writes the picture.
func (t tracer) write(starts []start, o options) error {
	var w picture.Waterfall
	for _, s := range starts {
		w.Starts = append(w.Starts, waterfall(s))
	}

	w.Title = "One pod's start, from the API server's answer to Ready"
	w.Unit = "ms"
	w.Note = fmt.Sprintf("The median of %d pods on each node, as its programs' spans date it.", o.pods)

	for _, s := range w.Starts {
		fmt.Fprintf(t.out, "%s: Ready after %.1f ms\n", s.What, s.Took)
		for _, b := range s.Bars {
			fmt.Fprintf(t.out, "  %8.1f %8.1f  %*s%s (%s)\n", b.At, b.Took, 2*b.Depth, "", b.What, b.Program)
		}
	}

	if err := os.WriteFile(o.svg, w.Draw(), 0o644); err != nil {
		return err
	}
	if o.data == "" {
		return nil
	}

	data, err := json.MarshalIndent(w, "", "  ")
	if err != nil {
		return err
	}

	return os.WriteFile(o.data, append(data, '\n'), 0o644)
}

// waterfall puts the spans of a start into the order of a tree, depth first. A call's span of the client is
// left out where the server has sent one.
func waterfall(s start) picture.Start {
	out := picture.Start{What: s.what, Took: milliseconds(s.pod.Ready.Sub(s.pod.Created))}
	children := map[string][]receiver.Span{}
	known := map[string]bool{}
	for _, span := range s.spans {
		known[span.ID] = true
	}

	for _, span := range s.spans {
		parent := span.Parent
		if !known[parent] {
			parent = ""
		}

		children[parent] = append(children[parent], span)
	}

	var add func(parent string, depth int)
	add = func(parent string, depth int) {
		for _, span := range children[parent] {
			served := children[span.ID]
			if len(served) == 1 && served[0].Service != span.Service {
				add(span.ID, depth)
				continue
			}

			out.Bars = append(out.Bars, picture.Bar{
				What:    span.Name,
				Program: span.Service,
				Depth:   depth,
				At:      milliseconds(span.Began.Sub(s.pod.Created)),
				Took:    milliseconds(span.Ended.Sub(span.Began)),
			})

			add(span.ID, depth+1)
		}
	}

	add("", 0)
	return out
}

func milliseconds(d time.Duration) float64 {
	return float64(d.Round(100*time.Microsecond).Microseconds()) / 1000
}
