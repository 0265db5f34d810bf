package main

import (
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// row is one thing that was seen, on each side.
type row struct {
	what   string
	values []string

	// isMeasured is set where the values differ from run to run: only the others are compared.
	isMeasured bool
}

// same reports whether the sides agree, but for quantities.
func (r row) same() bool {
	for _, v := range r.values[1:] {
		if masked(v) != masked(r.values[0]) {
			return false
		}
	}
	return true
}

// empty reports whether nothing was seen on any side.
func (r row) empty() bool {
	return !slices.ContainsFunc(r.values, func(v string) bool { return v != "-" })
}

// quantity is one that differs from run to run.
var quantity = regexp.MustCompile(`\b[0-9]+(\.[0-9]+)?([KMG]i?|[km])?\b`)

func masked(text string) string { return quantity.ReplaceAllString(text, "N") }

// report prints the rows of a case: those that are the same once, and others with the value of each side.
func report(out io.Writer, c testCase, names []string, records []*record) {
	fmt.Fprintf(out, "\n== %s: %s\n", c.name, c.about)
	for _, r := range rows(records, c.condition != "") {
		if r.empty() {
			continue
		}

		isSame := r.same() && !r.isMeasured
		if isSame && len(names) > 1 {
			fmt.Fprintf(out, "   %-34s %s\n", r.what, r.values[0])
			continue
		}

		mark := " !"
		if r.isMeasured || len(names) == 1 {
			mark = "  "
		}

		for i, name := range names {
			what := r.what
			if i > 0 {
				what = ""
			}

			fmt.Fprintf(out, "%s %-34s %-8s %s\n", mark, what, name, r.values[i])
		}
	}
}

// rows are what the records say, side by side. Pods that exceed limits of their own are evicted in no order.
func rows(records []*record, isOrdered bool) []row {
	all := []row{
		rowOf("evicted", records, func(r *record) string {
			names := r.order()
			if !isOrdered {
				slices.Sort(names)
			}
			return strings.Join(names, " ")
		}),
		rowOf("refused", records, func(r *record) string { return strings.Join(r.refused(), " ") }),
		rowOf("did not come", records, func(r *record) string { return strings.Join(r.missed, "; ") }),
	}

	for _, name := range podNames(records) {
		all = append(all, podRows(name, records)...)
	}

	return append(all, nodeRows(records)...)
}

func rowOf(what string, records []*record, value func(*record) string) row {
	r := row{what: what}
	for _, record := range records {
		v := value(record)
		if v == "" {
			v = "-"
		}
		r.values = append(r.values, v)
	}
	return r
}

func podNames(records []*record) []string {
	names := map[string]bool{}
	for _, r := range records {
		for name := range r.pods {
			names[name] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// podRows are those of a pod. Of one that runs on, only that is said.
func podRows(name string, records []*record) []row {
	of := func(what string, value func(*life) string) row {
		return rowOf(name+": "+what, records, func(r *record) string {
			if l := r.pods[name]; l != nil {
				return value(l)
			}

			return ""
		})
	}

	all := []row{of("phase", func(l *life) string {
		return strings.TrimSpace(string(l.last.Status.Phase) + " " + l.last.Status.Reason)
	})}
	if all[0].same() && all[0].values[0] == string(corev1.PodRunning) {
		return all
	}

	took := rowOf(name+": evicted after", records, func(r *record) string {
		if l := r.pods[name]; l == nil || l.failed.IsZero() || l.running.IsZero() {
			return ""
		}

		return seconds(r.after(name))
	})

	took.isMeasured = true

	return append(all, took,
		of("message", func(l *life) string { return l.last.Status.Message }),
		of("failures", func(l *life) string { return fmt.Sprint(l.failures) }),
		of("conditions", func(l *life) string { return conditionsOf(&l.last) }),
		of("containers", func(l *life) string { return containersOf(&l.last) }),
		of("events", func(l *life) string { return eventsOf(l.events) }),
		of("annotations", func(l *life) string { return annotationsOf(l.events) }),
	)
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

func conditionsOf(pod *corev1.Pod) string {
	var all []string
	for _, c := range pod.Status.Conditions {
		text := string(c.Type) + "=" + string(c.Status)
		if c.Reason != "" {
			text += "(" + c.Reason + ")"
		}
		all = append(all, text)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func containersOf(pod *corev1.Pod) string {
	var all []string
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		text := s.Name
		switch {
		case s.State.Terminated != nil:
			t := s.State.Terminated
			// The exit code is masked in comparisons, and matters.
			text += fmt.Sprintf(" %s exit=%s",
				t.Reason, strings.Repeat("+", int(t.ExitCode)/64)+fmt.Sprint(t.ExitCode))

		case s.State.Waiting != nil:
			text += " waiting " + s.State.Waiting.Reason
		case s.State.Running != nil:
			text += " running"
		}

		all = append(all, text)
	}

	return strings.Join(all, ", ")
}

// eventsOf are the events but those of a start, by reason. How often a container was killed is not told.
func eventsOf(events []event) string {
	var all []string
	for _, e := range events {
		switch e.reason {
		case "Pulling", "Pulled", "Created", "Started", "Scheduled":
			continue
		}

		text := fmt.Sprintf("%s %s: %s", e.kind, e.reason, e.message)
		if e.count > 1 {
			text += fmt.Sprintf(" (x%d)", e.count)
		}

		all = append(all, text)
	}

	slices.Sort(all)
	return strings.Join(all, "; ")
}

func annotationsOf(events []event) string {
	var all []string
	for _, e := range events {
		for _, key := range slices.Sorted(maps.Keys(e.annotations)) {
			all = append(all, e.reason+" "+key+"="+e.annotations[key])
		}
	}
	return strings.Join(all, "; ")
}

// nodeRows are those of the node.
func nodeRows(records []*record) []row {
	var all []row
	for _, t := range pressure {
		lasted := rowOf("node: "+string(t)+" lasted", records, func(r *record) string {
			if s := r.node.conditions[t]; s != nil {
				return seconds(s.lasted())
			}

			return ""
		})

		lasted.isMeasured = true
		all = append(all, lasted)
	}

	images := rowOf("node: images", records, func(r *record) string { return fmt.Sprint(r.node.images) })
	images.isMeasured = true
	return append(all,
		rowOf("node: conditions",
			records, func(r *record) string { return strings.Join(r.node.shown, "; ") }),
		rowOf("node: taints", records, func(r *record) string { return strings.Join(r.node.taints, " ") }),
		rowOf("node: events", records, func(r *record) string { return eventsOf(r.node.events) }),
		images,
	)
}

// figuresOf are the times until the evictions of a case.
func figuresOf(c testCase, sides []*side, records []*record) []figure.Figure {
	var all []figure.Figure
	for i, r := range records {
		for _, name := range r.order() {
			all = append(all, figure.Of(
				"evict",
				c.name+": evicted after: "+name,
				sideName(sides[i].node.Agent),
				[]time.Duration{r.after(name)},
			))
		}
	}

	return all
}

func sideName(agent string) string {
	if agent == "trivet" {
		return figure.Ours
	}
	return agent
}
