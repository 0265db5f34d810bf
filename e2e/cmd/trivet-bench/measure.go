package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/retry"
)

// oneByOne: single pods, the nodes in turns.
func (r *comparison) oneByOne(ctx context.Context) error {
	return r.single(ctx, r.Bench, "one", "pod", r.singles)
}

// withProbe: single pods whose program is asked by HTTP whether it is ready, as often as the API server has
// it by default.
func (r *comparison) withProbe(ctx context.Context) error {
	servers := *r.Bench
	servers.Image = r.serverImage
	servers.Readiness = &corev1.Probe{
		ProbeHandler: corev1.ProbeHandler{
			HTTPGet: &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80)},
		},
	}
	if err := servers.Prepare(ctx, []string{r.nodes[0].Name, r.nodes[1].Name}); err != nil {
		return err
	}
	return r.single(ctx, &servers, "served", "server with a readiness probe (every 10 s)", r.served)
}

func (r *comparison) single(ctx context.Context, b *bench.Bench, prefix, what string, rounds int) error {
	ready, gone := make([][]time.Duration, len(r.nodes)), make([][]time.Duration, len(r.nodes))
	for i := range rounds {
		for n, node := range r.nodes {
			s, err := b.One(ctx, node.Name, fmt.Sprintf("%s-%d-%d", prefix, n, i))
			if err != nil {
				return err
			}

			ready[n], gone[n] = append(ready[n], s.ToReady), append(gone[n], s.ToGone)
		}
	}

	r.section = "one " + what + " at a time"
	r.title("%s, %d on each node in turns", r.section, rounds)
	r.durations("created -> Ready", ready)
	r.durations("deleted -> gone", gone)
	return nil
}

// atOnce: bursts, the nodes in turns.
func (r *comparison) atOnce(ctx context.Context) error {
	ready, gone := make([][]time.Duration, len(r.nodes)), make([][]time.Duration, len(r.nodes))
	for i := range r.bursts {
		for n, node := range r.nodes {
			b, err := r.Many(ctx, node.Name, bench.Names(fmt.Sprintf("many-%d-%d", n, i), r.many))
			if err != nil {
				return err
			}

			ready[n], gone[n] = append(ready[n], b.AllReady), append(gone[n], b.AllGone)
		}
	}

	r.section = fmt.Sprintf("%d pods at once", r.many)
	r.title("%s, %d bursts on each node in turns", r.section, r.bursts)
	r.durations("all Ready", ready)
	r.durations("all gone", gone)
	return nil
}

// daemons are the programs that count as a node's own: agent, runtime and what the runtime keeps for its
// containers.
var daemons = []string{
	"trivet-node", "trivet-cri", "trivet-monitor", "trivet-netd", "trivet-csi", "kubelet", "containerd",
	"containerd-shim-runc-v2",
}

const idleFor = 30 * time.Second

// fresh is memory and processor time of nodes that have had nothing to do yet.
func (r *comparison) fresh(ctx context.Context) error {
	r.section = "before the first pod"
	r.title("memory before the first pod, and processor time over %s", idleFor)
	return r.usage(ctx)
}

// memory and processor time with nothing to do any more and with many pods that do nothing.
func (r *comparison) memory(ctx context.Context) error {
	r.section = "after the bursts"
	r.title("memory after the bursts, without pods, and processor time over %s", idleFor)
	if err := r.usage(ctx); err != nil {
		return err
	}

	return r.staying(ctx, r.many, 1)
}

// staying: memory and processor time with pods that do nothing, looked at some times one after the other.
func (r *comparison) staying(ctx context.Context, pods, times int) error {
	var names []string
	for n, node := range r.nodes {
		mine := bench.Names(fmt.Sprintf("stay-%d", n), pods)
		names = append(names, mine...)
		if err := r.Start(ctx, node.Name, mine); err != nil {
			return err
		}
	}

	for range times {
		r.section = fmt.Sprintf("with %d pods", pods)
		r.title("memory with %d pods on each node, and processor time over %s", pods, idleFor)
		if err := r.usage(ctx); err != nil {
			return err
		}
	}

	return r.Stop(ctx, names)
}

func (r *comparison) usage(ctx context.Context) error {
	before := make([]map[string]int, len(r.nodes))
	for n, node := range r.nodes {
		before[n] = map[string]int{}
		for program, pids := range r.cluster.Machine(node.Name).Processes() {
			before[n][program] = bench.CPUOf(pids)
		}
	}

	// The length of the measurement.
	if err := retry.Sleep(ctx, idleFor); err != nil {
		return err
	}

	w := tabwriter.NewWriter(r.out, 0, 8, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "node\tprogram\tprocesses\tRSS MiB\tPSS MiB\tCPU %\t")
	for n, node := range r.nodes {
		processes := r.cluster.Machine(node.Name).Processes()
		var sum bench.Memory
		ticks := 0
		for _, program := range slices.Sorted(maps.Keys(processes)) {
			if !slices.Contains(daemons, program) {
				continue
			}

			m, used := bench.MemoryOf(processes[program]), bench.CPUOf(processes[program])-before[n][program]
			r.row(w, node.Name, program, m, used)
			sum = sum.Plus(m)
			ticks += used
		}

		r.row(w, node.Name, "all", sum, ticks)
		r.figures.Add(usageFigures(r.section, r.side(n), sum, ticks)...)
	}

	return w.Flush()
}

func (r *comparison) row(w *tabwriter.Writer, node, program string, m bench.Memory, ticks int) {
	percent := percentOf(ticks)
	fmt.Fprintf(
		w,
		"%s\t%s\t%d\t%.1f\t%.1f\t%.1f\t\n",
		node,
		program,
		m.Processes,
		float64(m.RSS)/1024,
		float64(m.PSS)/1024,
		percent,
	)
}

// percentOf is the share of one processor that ticks are of idleFor. A tick is a hundredth of a second.
func percentOf(ticks int) float64 { return float64(ticks) / idleFor.Seconds() }

// side is the name of a node's make in figures.
func (r *comparison) side(n int) string {
	if r.nodes[n].Agent == "trivet" {
		return figure.Ours
	}
	s := r.nodes[n].Seats
	return s.Agent + "+" + s.CRI + "+" + s.OCI
}

// usageFigures are those of all daemons of a node together.
func usageFigures(when, side string, m bench.Memory, ticks int) []figure.Figure {
	of := func(what, unit string, value float64) figure.Figure {
		return figure.Figure{
			Bench:  "pods",
			What:   what,
			Side:   side,
			Unit:   unit,
			Median: value,
		}
	}

	return []figure.Figure{
		of("memory of the daemons "+when+": RSS", "MiB", float64(m.RSS)/1024),
		of("memory of the daemons "+when+": PSS", "MiB", float64(m.PSS)/1024),
		of("processor time of the daemons "+when, "%", percentOf(ticks)),
	}
}

// title of a table, with the load of the machine: what the figures are worth depends on it.
func (r *comparison) title(format string, args ...any) {
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	fmt.Fprintf(r.out, "\n%s (load average %s)\n", fmt.Sprintf(format, args...), first)
}

// durations prints median and slowest of each node, and how the medians compare.
func (r *comparison) durations(what string, all [][]time.Duration) {
	for n := range r.nodes {
		r.figures.Add(figure.Of("pods", r.section+": "+what, r.side(n), all[n]))
	}

	ours, theirs := bench.Median(all[0]), bench.Median(all[1])
	fmt.Fprintf(r.out, "  %-18s", what)
	for n, node := range r.nodes {
		fmt.Fprintf(
			r.out,
			"%s p50 %5d ms, max %5d ms;  ",
			node.Name,
			bench.Median(all[n]).Milliseconds(),
			slices.Max(all[n]).Milliseconds(),
		)
	}

	fmt.Fprintf(r.out, "ratio 1/%.1f\n", float64(theirs)/float64(ours))
}
