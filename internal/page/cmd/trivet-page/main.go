// Command trivet-page prints what the source of a repository is like to read, part by part, and its largest
// types: the figures behind the rules of page_test.go.
//
//	trivet-page [DIR]
package main

import (
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/trivet-node/trivet/internal/page"
)

func main() {
	dir := "."
	if len(os.Args) > 1 {
		dir = os.Args[1]
	}

	sources, err := page.Read(os.DirFS(dir))
	if err == nil {
		err = report(os.Stdout, sources)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trivet-page:", err)
		os.Exit(1)
	}
}

// columns are the parts of the table, in order; the last is the whole repository.
var columns = []string{"cni", "csi", "cri", "node", "internal", "e2e", ""}

// row is one measure of the table.
type row struct {
	title string
	value func(page.Figures) any
}

var rows = []row{
	{"packages", func(f page.Figures) any { return f.Packages }},
	{"files, of tests too", func(f page.Figures) any { return f.Files }},
	{"lines of the product", func(f page.Figures) any { return f.Lines }},
	{"lines of tests", func(f page.Figures) any { return f.TestLines }},
	{"lines over 110 columns", func(f page.Figures) any { return f.Over110 }},
	{"lines over 120 columns", func(f page.Figures) any { return f.Over120 }},
	{"crowded lines of literals", func(f page.Figures) any { return f.Crowded }},
	{"comments behind code", func(f page.Figures) any { return f.Behind }},
	{"time.Sleep in the product", func(f page.Figures) any { return f.Sleeps }},
	{"functions", func(f page.Figures) any { return f.Functions }},
	{"  lines: median", func(f page.Figures) any { return f.Median }},
	{"  lines: 95 %", func(f page.Figures) any { return f.P95 }},
	{"  lines: longest", func(f page.Figures) any { return f.Longest }},
	{"  over 60 lines", func(f page.Figures) any { return f.Over60 }},
	{"  25 lines and more", func(f page.Figures) any { return f.Long }},
	{"  of them dense", func(f page.Figures) any { return f.Dense }},
	{"  blank lines, %", func(f page.Figures) any { return fmt.Sprintf("%.1f", f.BlankShare) }},
	{"  lines of comment, %", func(f page.Figures) any { return fmt.Sprintf("%.1f", f.CommentShare) }},
	{"tests", func(f page.Figures) any { return f.Tests }},
	{"  that need root", func(f page.Figures) any { return f.RootTests }},
	{"packages without a test", func(f page.Figures) any { return len(f.Untested) }},
}

// largest is the number of types to be listed.
const largest = 10

func report(out io.Writer, sources []page.Source) error {
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	var figures []page.Figures
	for _, part := range columns {
		files := sources
		if part == "" {
			part = "all"
		} else {
			files = page.Below(sources, part)
		}
		figures = append(figures, page.Count(files))
		fmt.Fprintf(table, "\t%s", part)
	}
	fmt.Fprintln(table, "\t")

	for _, r := range rows {
		fmt.Fprint(table, r.title)
		for _, f := range figures {
			fmt.Fprintf(table, "\t%v", r.value(f))
		}
		fmt.Fprintln(table, "\t")
	}
	if err := table.Flush(); err != nil {
		return err
	}

	fmt.Fprintln(out, "\nTypes with the most methods:")
	for _, t := range page.Types(sources)[:largest] {
		fmt.Fprintf(out, "  %3d methods, %2d fields: %s.%s\n", t.Methods, t.Fields, t.Dir, t.Name)
	}

	fmt.Fprintln(out, "\nPackages without a test of their own:")
	for _, dir := range figures[len(figures)-1].Untested {
		fmt.Fprintln(out, " ", dir)
	}
	return nil
}
