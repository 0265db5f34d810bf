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
	served := map[string]bool{}
	for _, path := range compared {
		rows := compare(
			snapshots{before[0][path], after[0][path], seconds},
			snapshots{before[1][path], after[1][path], seconds},
		)

		printRows(r.out, path, rows)
		for _, row := range rows {
			served[row.name] = true
		}
	}

	var neither []string
	for _, name := range mixinNames() {
		if !served[name] {
			neither = append(neither, name)
		}
	}

	fmt.Fprintf(r.out, "\nnamed by the kubernetes mixin, and not served by this kubelet either: %s\n",
		strings.Join(neither, " "))
}

// printRows prints the rows of an endpoint: those that the mixin names and those of the summary first, then
// of all others what is missing or differs.
func printRows(out io.Writer, path string, rows []row) {
	named := mixinNames()
	fmt.Fprintf(out, "\nvalues of %s: kubelet has %d families\n", path, len(rows))
	w := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "  family\twhose\tkubelet\ttrivet\tratio\toff\tlabels that trivet lacks")
	var missing []string
	for _, r := range rows {
		important := slices.Contains(named, r.name)
		switch {
		case !r.there && !important:
			missing = append(missing, r.name)
		case !r.there:
			fmt.Fprintf(w, "* %s\t\t\tMISSING\t\t\t\n", r.name)
		case important || r.off > 0 || len(r.missing) > 0 || path == summaryPath:
			printRow(w, r, important)
		}
	}

	_ = w.Flush()
	fmt.Fprintf(out, "  missing, and not named by the mixin: %d: %s\n",
		len(missing), strings.Join(missing, " "))
}

func printRow(w io.Writer, r row, important bool) {
	mark := " "
	if important {
		mark = "*"
	}
	fmt.Fprintf(w, "%s %s\t%s\t%.4g\t%.4g\t%.2f\t%d of %d\t%s\n", mark, r.name, r.where,
		r.theirs, r.ours, r.ratio(), r.off, r.groups, strings.Join(r.missing, " "))
}
