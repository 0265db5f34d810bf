package figure_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

func TestFiguresAreReadAsTheyWereWritten(t *testing.T) {
	took := []time.Duration{3 * time.Millisecond, time.Millisecond, 2500 * time.Microsecond}
	want := []figure.Figure{
		figure.Of("pods", "created -> Ready", figure.Ours, took),
		{Bench: "pods", What: "memory", Side: "kubelet", Unit: "MiB", Median: 83.2},
	}
	if f := want[0]; f.Median != 2.5 || f.Min != 1 || f.Max != 3 || f.Count != 3 {
		t.Errorf("figure %+v", f)
	}

	path := filepath.Join(t.TempDir(), "figures.jsonl")
	w := figure.NewWriter(path)
	w.Add(want...)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	got, err := figure.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestWriterWithoutAFileWritesNothing(t *testing.T) {
	w := figure.NewWriter("")
	w.Add(figure.Figure{Bench: "pods"})
	if err := w.Close(); err != nil {
		t.Error(err)
	}
}

func TestLineThatIsNoFigureIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "figures.jsonl")
	text := `{"bench":"pods","what":"x","side":"trivet","unit":"ms","median":1}` + "\n" + `{"mean":1}` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := figure.Read(path); err == nil || !strings.Contains(err.Error(), "figures.jsonl:2:") {
		t.Errorf("error %v, want one that names line 2", err)
	}
}

func TestResultsInTheRepositoryAreComplete(t *testing.T) {
	units := map[string]bool{"ms": true, "s": true, "MiB": true, "MiB/s": true, "%": true, "1/s": true}
	for _, bench := range []string{"pods", "cni", "csi", "pull"} {
		figures, err := figure.Read(filepath.Join("../results", bench+".jsonl"))
		if err != nil || len(figures) == 0 {
			t.Errorf("%s: %d figures, %v", bench, len(figures), err)
		}

		ours := map[string]bool{}
		for _, f := range figures {
			if f.Bench != bench || f.What == "" || !units[f.Unit] || f.Median < 0 {
				t.Errorf("%s: %+v", bench, f)
			}

			// The name of a lower bound begins with its side: a picture compares trivet with one other side.
			isOurs := f.Side == figure.Ours || strings.HasPrefix(f.What, f.Side+", ")
			ours[f.What] = ours[f.What] || isOurs
		}

		for what, known := range ours {
			if !known {
				t.Errorf("%s: %s is not known of trivet", bench, what)
			}
		}
	}
}
