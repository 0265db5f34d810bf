package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
)

// look asks each node for each endpoint; the result is by node, then by endpoint.
func (r *comparison) look(ctx context.Context) ([]map[string]page, error) {
	all := make([]map[string]page, len(r.targets))
	for i, t := range r.targets {
		all[i] = map[string]page{}
		for _, path := range compared {
			a, err := t.scrape(ctx, path)
			if err != nil {
				return nil, err
			}
			if all[i][path], err = parseAnswer(path, a.text); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", path, t.name, err)
			}
			if err := r.keep(t.name, path, a.text); err != nil {
				return nil, err
			}
		}
	}

	return all, nil
}

func parseAnswer(path string, text []byte) (page, error) {
	if path == summaryPath {
		return summaryPage(text)
	}
	return parse(text)
}

// keep writes an answer to the directory of answers.
func (r *comparison) keep(node, path string, text []byte) error {
	if r.pages == "" {
		return nil
	}
	if err := os.MkdirAll(r.pages, 0o755); err != nil {
		return err
	}

	name := node + strings.ReplaceAll(path, "/", "-")
	return os.WriteFile(filepath.Join(r.pages, name), text, 0o644)
}

// values prints, for each endpoint, how the values of both nodes compare.
func (r *comparison) values(before, after []map[string]page, seconds float64) {
	for _, path := range compared {
		table{r.out, path, r.needs}.print(compare(
			snapshots{before[0][path], after[0][path], seconds},
			snapshots{before[1][path], after[1][path], seconds},
		))
	}
}

// table is of the values of one endpoint.
type table struct {
	out   io.Writer
	path  string
	needs []need
}

// print prints a row for each family that rules and dashboards need, for each of the summary, and of all
// others for those that differ; then what is missing.
func (t table) print(rows []row) {
	fmt.Fprintf(t.out, "\nvalues of %s: kubelet has %d families\n", t.path, len(rows))
	w := tabwriter.NewWriter(t.out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(
		w,
		"  family\twhose\tkubelet\ttrivet\tratio\toff\tlabels that trivet lacks (!: they are needed)",
	)

	var missing []string
	for _, r := range rows {
		need := needOf(t.needs, t.path, r.name)
		switch {
		case !r.there && need == nil:
			missing = append(missing, r.name)
		case !r.there:
			fmt.Fprintf(w, "* %s\t\t\tMISSING\t\t\t\n", r.name)
		case need != nil || r.off > 0 || len(r.missing) > 0 || t.path == summaryPath:
			printRow(w, r, need)
		}
	}

	_ = w.Flush()
	fmt.Fprintf(t.out, "  missing and not needed: %d: %s\n", len(missing), strings.Join(missing, " "))
	fmt.Fprintf(t.out, "  needed and not served by this kubelet: %s\n", strings.Join(t.unserved(rows), " "))
}

func printRow(w io.Writer, r row, need *need) {
	mark := " "
	var lacks []string
	for _, label := range r.missing {
		if need != nil && slices.Contains(need.Labels, label) {
			label += "!"
		}

		lacks = append(lacks, label)
	}

	if need != nil {
		mark = "*"
	}

	fmt.Fprintf(w, "%s %s\t%s\t%.4g\t%.4g\t%.2f\t%d of %d\t%s\n", mark, r.name, r.where,
		r.theirs, r.ours, r.ratio(), r.off, r.groups, strings.Join(lacks, " "))
}

// unserved are the families that are needed of this endpoint and that kubelet has not shown: some appear with
// the first event that they count.
func (t table) unserved(rows []row) []string {
	var names []string
	for _, n := range t.needs {
		served := slices.ContainsFunc(rows, func(r row) bool { return r.name == n.Name })
		if n.Page == t.path && !n.Gone && !served {
			names = append(names, n.Name)
		}
	}
	return names
}
