package page

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs/results"
)

// outsideIntro begins docs/conformance-outside.md.
const outsideIntro = `# Specs outside of the conformance set

The specs of [sig-network], [sig-storage] and [sig-node] that are neither in
[the conformance set](conformance.md) nor made for a feature that a cluster may not have, and those
of NetworkPolicy (policy) and trivet-csi (external), as they ran last on two trivet nodes. No test
holds them to it: they are
run by hand, ` + "`make conformance SET=network RESULTS=docs/data/conformance`" + `, and tell what to do next.
Specs that start a server of NFS are left out: its images cannot be made ([images](images.md)).

`

// Outside returns the text of docs/conformance-outside.md.
func Outside(d Data) string {
	var out strings.Builder
	out.WriteString(outsideIntro)
	for _, set := range outside {
		run, made := d.Outside[set]
		if !made {
			fmt.Fprintf(&out, "## %s\nNot run.\n\n", set)
			continue
		}

		fmt.Fprintf(
			&out,
			"## %s\n%s, commit %s, %d nodes:\n%s.\n\n",
			set,
			run.Date,
			run.Commit,
			run.Nodes,
			run.Seats,
		)

		writeOutside(&out, run.Set)
	}

	return strings.TrimRight(out.String(), "\n") + "\n"
}

func writeOutside(out *strings.Builder, set results.Set) {
	of := map[results.State][]results.Record{}
	for _, r := range set.Sorted() {
		of[r.State()] = append(of[r.State()], r)
	}

	fmt.Fprintf(
		out,
		"%d specs: %d passed, %d flaky, %d failed, %d skipped.\n\n",
		len(set),
		len(of[results.Passed]),
		len(of[results.Flaky]),
		len(of[results.Failed]),
		len(of[results.Skipped]),
	)

	if bad := append(of[results.Failed], of[results.Flaky]...); len(bad) > 0 {
		out.WriteString("| spec | state | s | message |\n| --- | --- | --- | --- |\n")
		for _, r := range bad {
			fmt.Fprintf(
				out,
				"| %s | %s | %.1f | %s |\n",
				cell(r.Spec),
				r.State(),
				r.Took().Seconds(),
				cell(r.Message()),
			)
		}

		out.WriteString("\n")
	}

	if passed := of[results.Passed]; len(passed) > 0 {
		out.WriteString("| passed | s |\n| --- | --- |\n")
		for _, r := range passed {
			fmt.Fprintf(out, "| %s | %.1f |\n", cell(r.Spec), r.Took().Seconds())
		}

		out.WriteString("\n")
	}

	writeSkips(out, of[results.Skipped])
}

// writeSkips lists what the suite skipped by its reasons: the most frequent one first.
func writeSkips(out *strings.Builder, skipped []results.Record) {
	if len(skipped) == 0 {
		return
	}

	byReason := map[string][]string{}
	for _, r := range skipped {
		reason := strings.TrimPrefix(r.Message(), "skipped - ")
		byReason[reason] = append(byReason[reason], r.Spec)
	}

	reasons := slices.SortedFunc(maps.Keys(byReason), func(a, b string) int {
		return cmp.Or(cmp.Compare(len(byReason[b]), len(byReason[a])), strings.Compare(a, b))
	})

	out.WriteString("| skipped, by the suite's reason | specs |\n| --- | --- |\n")
	for _, reason := range reasons {
		names := byReason[reason]
		shown := make([]string, len(names))
		for i, n := range names {
			shown[i] = cell(n)
		}

		fmt.Fprintf(out, "| %s (%d) | %s |\n", cell(cmp.Or(reason, "none given")), len(names),
			strings.Join(shown, "<br>"))
	}

	out.WriteString("\n")
}
