package trivet

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/testenv"
)

// metricPages are the pages of the node's endpoint that docs/metrics.md lists.
var metricPages = []string{
	"/metrics",
	"/metrics/cadvisor",
	"/metrics/resource",
	"/metrics/probes",
	"/metrics/slis",
}

func TestPageOfMetricsIsThatOfTheList(t *testing.T) {
	var text strings.Builder
	for _, page := range metricPages {
		writeMetrics(&text, page, testenv.KubeletMetrics(t, page))
	}
	compareSection(t, "docs/metrics.md", "metrics", text.String())
}

// writeMetrics writes the metrics of a page: those that are served, and the others by the reason.
func writeMetrics(w *strings.Builder, page string, all []testenv.Metric) {
	var served []string
	absent := map[string][]string{}
	var reasons []string
	for _, m := range all {
		name := "`" + m.Name + "`"
		if m.State == "served" {
			served = append(served, name)
			continue
		}

		reason := fmt.Sprintf("| %s | %s |", m.State,
			m.Why)
		if absent[reason] == nil {
			reasons = append(reasons, reason)
		}

		absent[reason] = append(absent[reason], name)
	}

	fmt.Fprintf(w, "### %s\n", page)
	w.WriteString(wrapped(fmt.Sprintf("%d are served: %s.", len(served), strings.Join(served, ", "))))
	w.WriteString("\n")
	if len(reasons) == 0 {
		return
	}

	slices.Sort(reasons)
	w.WriteString("| state | why | metrics |\n| --- | --- | --- |\n")
	for _, r := range reasons {
		fmt.Fprintf(w, "%s %s |\n", r, strings.Join(absent[r], ", "))
	}

	w.WriteString("\n")
}

// wrapped breaks a paragraph at the width of documents.
func wrapped(text string) string {
	var out strings.Builder
	width := 0
	for word := range strings.FieldsSeq(text) {
		switch {
		case width == 0:
		case width+1+len(word) > maxDocWidth:
			out.WriteByte('\n')
			width = 0
		default:
			out.WriteByte(' ')
			width++
		}

		out.WriteString(word)
		width += len(word)
	}

	return out.String() + "\n"
}
