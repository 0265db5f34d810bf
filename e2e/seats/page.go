package seats

import (
	"fmt"
	"slices"
	"strings"
)

// intro begins docs/seats.md.
const intro = `# Who sits in a node's seats

Each part of trivet stands in for a program that people run today, and works with those that stay.
` + "`make seats RESULTS=docs/data`" + ` brings up a cluster for each row, measures pods one by one, runs
the tests below and the [demo](cluster.md), and writes this page from what came out.
` + "`make test`" + ` does it with one row, which is another one for each commit;
` + "`make seats CELLS=kubelet,upstream`" + ` with those that have both programs.

The others are kubelet 1.37.2, containerd 2.4, the upstream plugins (bridge, host-local, portmap)
and Rancher's local-path-provisioner 0.0.30, which kind and k3s come with. The Kubernetes project's
csi-driver-host-path cannot be had through the Go module proxy
([ADR 0760](adr/0760-the-seat-of-volumes.md)).

Parts are exchanged on a node that runs, too: ` + "`make seats-live`" + ` puts kubelet, the upstream plugins
and local-path-provisioner under 30 pods with volumes, probed every second, and takes them away
again: no container is restarted, no address lost, nothing mounted again, no pod unready
([ADR 0761](adr/0761-a-swap-is-judged-by-what-the-kernel-shows.md)). Two of the four cannot be
exchanged under what they have made. A CRI server is the parent of its containers: it is exchanged
on a drained node, and upgraded under running pods. A volume stays with the driver that made it: the
other one makes the next volumes, and a pod whose volume is the old one's ends when that is back.

`

// remarks stand below the matrix.
const remarks = `
With containerd, a container may be created twice when its agent is killed: containerd gives up a
start whose caller is gone ("StartError"), and the next agent makes another container. None runs
twice. trivet-cri finishes the start.

`

// Page is docs/seats.md.
func Page(all []Result) string {
	var out strings.Builder
	out.WriteString(intro)
	out.WriteString("## The matrix\n\n")
	out.WriteString("| agent | CRI server | CNI plugin | volumes | OCI, init | demo | tests | " +
		"created -> Ready | deleted -> gone | load | commit |\n")
	out.WriteString("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n")
	for _, cell := range Cells() {
		c := columns(cell)
		seats := strings.Join(c[:4], " | ") + " | " + strings.Join(c[4:], ", ")
		r, there := of(all, cell)
		if !there {
			fmt.Fprintf(&out, "| %s | not run | | | | | |\n", seats)
			continue
		}

		demo := "works"
		if r.Demo != "" {
			demo = "fails"
		}
		fmt.Fprintf(&out, "| %s | %s | %d of %d | %s | %s | %.1f | %s |\n", seats, demo,
			len(r.Passed), len(r.Passed)+len(r.Failed), r.Ready, r.Gone, r.Load, r.Commit)
	}

	out.WriteString(remarks)
	writeFailures(&out, all)
	writeScenarios(&out)
	writeMachines(&out, all)
	return out.String()
}

// String is the median with the ends.
func (f Figures) String() string {
	if f.Count == 0 {
		return ""
	}
	return fmt.Sprintf("%.0f ms (%.0f to %.0f)", f.Median, f.Min, f.Max)
}

func writeFailures(out *strings.Builder, all []Result) {
	var lines []string
	for _, cell := range Cells() {
		r, there := of(all, cell)
		if !there || r.err() == nil {
			continue
		}

		what := slices.Clone(r.Failed)
		if r.Demo != "" {
			what = append(what, "the demo")
		}
		if step, _, _ := strings.Cut(r.Trouble, ":"); step != "" {
			what = append(what, step)
		}
		lines = append(lines, fmt.Sprintf("| %s | %s | %s |\n", r.Cell, strings.Join(what, ", "), r.Note))
	}

	if len(lines) > 0 {
		out.WriteString("## What failed\n\n| row | what | why |\n| --- | --- | --- |\n")
		out.WriteString(strings.Join(lines, "") + "\n")
	}
}

// chosen stands above the names of the tests.
const chosen = `## The tests

A few of e2e/scenario, each with a leak check at its end: those of what a program leaves to its
neighbours, and to its next start, when it ends. The others (` + "`make e2e`" + `) run with trivet in all
seats alone, so that a row says nothing of what they look at.

`

func writeScenarios(out *strings.Builder) {
	out.WriteString(chosen)
	for _, name := range Scenarios {
		fmt.Fprintf(out, "- `%s`\n", name)
	}
	out.WriteString("\n")
}

func writeMachines(out *strings.Builder, all []Result) {
	var machines []string
	for _, r := range all {
		machines = append(machines, r.Machine+", "+r.Date)
	}

	slices.Sort(machines)
	machines = slices.Compact(machines)
	if len(machines) > 0 {
		out.WriteString("## The machine\n\nOne node, medians with the shortest and the longest time; load " +
			"is the load average when the\npods were measured.\n\n")
	}
	for _, m := range machines {
		fmt.Fprintf(out, "- %s\n", m)
	}
}
