package page

import (
	"fmt"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/results"
)

// intro begins docs/conformance.md.
const intro = `# Conformance

All specs of the published end-to-end suite of Kubernetes (e2e.test %s) whose name has
[Conformance] or [NodeConformance], as they ran last on two trivet nodes, and beside that as they
ran on the same machine with kubelet, containerd, runc and the upstream CNI plugins in the seats.
` + "`make conformance RESULTS=docs/data/conformance`" + ` runs them, keeps the results there, and writes
this page from them; [the cluster](cluster.md#conformance) says how. Specs outside of this set are
on [a page of their own](conformance-outside.md).

A *flaky* spec failed among the others and passed when it ran again alone: it has not passed. An
*excepted* one fails with kubelet, too, for the reason of the kernel or the machine that is given. A
*skipped* one was skipped by the suite, with its reason.

`

// Conformance returns the text of docs/conformance.md.
func Conformance(d Data) string {
	var out strings.Builder
	fmt.Fprintf(&out, intro, d.Version)
	writeRuns(&out, d)
	writeSums(&out, d)
	writeReasons(&out, d)
	writeSpecs(&out, d)
	return strings.TrimRight(out.String(), "\n") + "\n"
}

func writeRuns(out *strings.Builder, d Data) {
	out.WriteString("## The runs\n| | nodes | seats | machine | commit | date |\n| --- | --- | --- | --- " +
		"| --- | --- |\n")
	for _, run := range []struct {
		name string
		Run
	}{{"trivet", d.Ours}, {"kubelet", d.Kubelets}} {
		if run.Set == nil {
			fmt.Fprintf(out, "| %s | not run | | | | |\n", run.name)
			continue
		}

		fmt.Fprintf(
			out,
			"| %s | %d | %s | %s | %s | %s |\n",
			run.name,
			run.Nodes,
			cell(run.Seats),
			cell(run.Machine),
			run.Commit,
			run.Date,
		)
	}

	out.WriteString("\n")
}

// counted are the states in the order of the columns.
var counted = []string{
	string(results.Passed), string(results.Flaky), string(results.Failed), excepted, string(results.Skipped),
	"not run",
}

func writeSums(out *strings.Builder, d Data) {
	out.WriteString("## By SIG\n| SIG | specs | " + strings.Join(counted, " | ") + " | kubelet passed |\n")
	out.WriteString("|" + strings.Repeat(" --- |", len(counted)+3) + "\n")
	for _, sig := range append(sigs(d.Names), "") {
		names := ofSIG(d.Names, sig)
		title := sig
		if sig == "" {
			title = "all"
		}

		fmt.Fprintf(out, "| %s | %d |", title, len(names))
		for _, state := range counted {
			fmt.Fprintf(out, " %d |", d.count(d.Ours, names, state))
		}

		fmt.Fprintf(out, " %d |\n", d.count(d.Kubelets, names, string(results.Passed)))
	}

	out.WriteString("\n")
}

func (d Data) count(run Run, names []string, state string) int {
	n := 0
	for _, name := range names {
		if d.state(run, name) == state {
			n++
		}
	}
	return n
}

// sigs are the groups that have specs.
func sigs(names []string) []string {
	var all []string
	for _, n := range names {
		all = append(all, specs.SIG(n))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ofSIG are the names of a group; of all groups if that is empty.
func ofSIG(names []string, sig string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(n string) bool {
		return sig != "" && specs.SIG(n) != sig
	})
}

// writeReasons lists what did not pass.
func writeReasons(out *strings.Builder, d Data) {
	out.WriteString("## What did not pass\n")
	var rows []string
	for _, n := range d.Names {
		state := d.state(d.Ours, n)
		if state == string(results.Passed) || state == "not run" {
			continue
		}

		reason := d.Exceptions[n]
		if reason == "" {
			reason = strings.TrimPrefix(d.Ours.Set[n].Message(), "skipped - ")
		}

		rows = append(
			rows,
			fmt.Sprintf("| %s | %s | %s | %s |\n", cell(n), state, d.state(d.Kubelets, n), cell(reason)),
		)
	}

	if len(rows) == 0 {
		out.WriteString("Nothing.\n\n")
		return
	}

	out.WriteString("| spec | trivet | kubelet | reason |\n| --- | --- | --- | --- |\n" + strings.Join(
		rows,
		"",
	) + "\n")
}

func writeSpecs(out *strings.Builder, d Data) {
	out.WriteString("## Every spec\n")
	for _, sig := range sigs(d.Names) {
		fmt.Fprintf(out, "### %s\n| spec | trivet | kubelet | s |\n| --- | --- | --- | --- |\n", sig)
		for _, n := range ofSIG(d.Names, sig) {
			short := strings.TrimPrefix(n, "["+sig+"] ")
			fmt.Fprintf(
				out,
				"| %s | %s | %s | %s |\n",
				cell(short),
				d.state(d.Ours, n),
				d.state(d.Kubelets, n),
				seconds(d.Ours, n),
			)
		}

		out.WriteString("\n")
	}
}

// seconds is how long a spec took.
func seconds(run Run, name string) string {
	r, ran := run.Set[name]
	if !ran {
		return ""
	}
	return fmt.Sprintf("%.1f", r.Took().Seconds())
}
