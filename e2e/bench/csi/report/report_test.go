package report_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/e2e/bench/csi/report"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/testenv"
)

func ours(what, unit string, median float64) figure.Figure {
	return figure.Figure{
		Bench:  "csi",
		What:   what,
		Side:   figure.Ours,
		Unit:   unit,
		Median: median,
	}
}

func TestFiguresAreShownBesideTheirGoals(t *testing.T) {
	got := report.Section([]figure.Figure{
		ours("snapshot of 1 GiB, one", "ms", 4.7),
		ours("snapshot of 1 GiB, another", "ms", 31),
		ours("creations, 5000 volumes present, 16 at once", "1/s", 1453),
		ours("GetCapacity, 5000 volumes present", "ms", 0.42),
		ours("longest other call beside copies, one", "ms", 120.4),
		ours("of something else", "ms", 1),
	})
	want := `| | measured | goal |
|---|---|---|
| creations of 16 callers | 1453/s | at least 1000/s |
| GetCapacity | 0.42 ms | at most 0.5 ms |
| snapshot of 1 GiB, of the slowest kind | 31 ms | at most 30 ms (missed) |
| longest call of another volume beside these | 120 ms |  |
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBarsShowTheShareOfTheDisk(t *testing.T) {
	p := report.RandomWrites
	got := report.Section([]figure.Figure{
		p.Figure("one", figure.Ours, 500), p.Figure("one", report.Disk, 1000),
		p.Figure("of longer name", figure.Ours, 3000), p.Figure("of longer name", report.Disk, 1000),
		p.Figure("not of the disk", figure.Ours, 3000),
	})
	want := "\n```\nrandom writes of 4 KiB, each with fdatasync, beside the bare disk at that moment\n" +
		"one             " + strings.Repeat("█", 10) + strings.Repeat("░", 10) + "  50 %  500/s of 1000/s\n" +
		"of longer name  " + strings.Repeat("█", 30) + " 300 %  3000/s of 1000/s\n```\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestNothingMeasuredIsSaid(t *testing.T) {
	if got := report.Section(nil); got != "Nothing of this was measured.\n" {
		t.Errorf("%q", got)
	}
}

// TestThePageShowsTheResults fails when docs/csi.md and what make bench-csi has measured differ.
// TRIVET_WRITE_DOCS=1 writes the section.
func TestThePageShowsTheResults(t *testing.T) {
	figures, err := figure.Read("../../results/csi.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	testenv.Section(t, "../../../../docs/csi.md", "measured", report.Section(figures))
}
