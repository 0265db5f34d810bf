// Package report shows figures of csi-bench as docs/csi.md has them: beside their goals, and input and output
// beside the bare disk as bars.
package report

import (
	"fmt"
	"math"
	"strings"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// goal is what a figure should be: at most, or at least if that is set.
type goal struct {
	shown string
	what  string // of the figure; of all whose names begin so if it ends with ", "
	limit float64
	least bool
}

// megabytes30 is 30 MB in MiB.
const megabytes30 = 28.6

// goals are in the order in which they are shown. Some calls have none for themselves.
var goals = []goal{
	{"create, alone", "create, 0 volumes present, 1 at once", 3, false},
	{"create, 16 at once", "create, 5000 volumes present, 16 at once", 10, false},
	{"creations of 16 callers", "creations, 5000 volumes present, 16 at once", 1000, true},
	{"publish", "publish, 5000 volumes present, 1 at once", 1, false},
	{"unpublish", "unpublish, 5000 volumes present, 1 at once", 1, false},
	{"expand, in use", "expand, 5000 volumes present", 3, false},
	{"GetCapacity", "GetCapacity, 5000 volumes present", 0.5, false},
	{"a page of 100 in ListVolumes", "page of 100 in ListVolumes, 5000 volumes present", 1, false},
	{"start to first answer", "start to first answer, 5000 volumes present", 300, false},
	{"resident memory (30 MB)", "resident memory, 5000 volumes present", megabytes30, false},
	{"resident memory at rest (30 MB)", "resident memory at rest, 5000 volumes present", megabytes30, false},
	{"snapshot of 1 GiB, of the slowest kind", "snapshot of 1 GiB, ", 30, false},
	{"volume of a snapshot of 1 GiB, of the slowest kind", "restore of 1 GiB, ", 30, false},
	{"clone of 1 GiB, of the slowest kind", "clone of 1 GiB, ", 30, false},
	{"longest call of another volume beside these", "longest other call beside copies, ", 0, false},
	{"the same while nothing is copied", "longest other call while nothing is copied", 0, false},
}

// PerSecond is the unit of operations.
const PerSecond = "1/s"

// Disk is the side of input and output on the disk below the driver.
const Disk = "bare disk"

// Pattern is a way to read and write.
type Pattern struct {
	Name string
	Unit string
}

// Patterns that are measured.
var (
	SequentialWrites = Pattern{"sequential writes, then a sync", "MiB/s"}
	RandomWrites     = Pattern{"random writes of 4 KiB, each with fdatasync", PerSecond}
	DirectWrites     = Pattern{"sequential writes past the page cache", "MiB/s"}
	SequentialReads  = Pattern{"sequential reads", "MiB/s"}
)

// Figure is what was measured of a pattern in a volume of a kind, or on the disk right before.
func (p Pattern) Figure(kind, side string, rate float64) figure.Figure {
	return figure.Figure{
		Bench:  "csi",
		What:   p.what(kind),
		Side:   side,
		Unit:   p.Unit,
		Median: math.Round(rate*10) / 10,
	}
}

func (p Pattern) what(kind string) string { return p.Name + ": " + kind }

// Section is Markdown: a table of all goals that something was measured of, and the bars.
func Section(figures []figure.Figure) string {
	table, bars := goalTable(figures), allBars(figures)
	if table == "" && bars == "" {
		return "Nothing of this was measured.\n"
	}
	return table + bars
}

func goalTable(figures []figure.Figure) string {
	var rows strings.Builder
	for _, g := range goals {
		f, ok := g.among(figures)
		if !ok {
			continue
		}
		fmt.Fprintf(&rows, "| %s | %s | %s |\n", g.shown, amount(f.Median, f.Unit), g.verdict(f))
	}
	if rows.Len() == 0 {
		return ""
	}
	return "| | measured | goal |\n|---|---|---|\n" + rows.String()
}

// among is the figure of trivet, or the largest of those that it may be.
func (g goal) among(figures []figure.Figure) (found figure.Figure, ok bool) {
	for _, f := range figures {
		named := f.What == g.what || strings.HasSuffix(g.what, ", ") && strings.HasPrefix(f.What, g.what)
		if named && f.Side == figure.Ours && (!ok || f.Median > found.Median) {
			found, ok = f, true
		}
	}
	return found, ok
}

func (g goal) verdict(f figure.Figure) string {
	if g.limit == 0 {
		return ""
	}
	text, missed := "at most "+amount(g.limit, f.Unit), f.Median > g.limit
	if g.least {
		text, missed = "at least "+amount(g.limit, f.Unit), f.Median < g.limit
	}
	if missed {
		text += " (missed)"
	}
	return text
}

// amount has three digits, or all before the point.
func amount(value float64, unit string) string {
	digits := 2
	switch {
	case value >= 100:
		digits = 0
	case value >= 10:
		digits = 1
	}
	if unit == PerSecond {
		return fmt.Sprintf("%.0f/s", value)
	}
	number := fmt.Sprintf("%.*f", digits, value)
	if digits > 0 {
		number = strings.TrimRight(strings.TrimRight(number, "0"), ".")
	}
	return number + " " + unit
}
