package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/picture"
)

func twoNodes(out *strings.Builder) *comparison {
	return &comparison{
		out:     out,
		figures: figure.NewWriter(""),
		nodes:   []cluster.Node{{Name: "node1", Seats: seat.Ours}, {Name: "ref1", Seats: seat.Reference}},
	}
}

func TestSidesAreNamedByTheirPrograms(t *testing.T) {
	r := twoNodes(nil)
	if r.side(0) != figure.Ours || r.side(1) != "kubelet+containerd+runc" {
		t.Errorf("sides %s and %s", r.side(0), r.side(1))
	}
}

func TestUsageIsOfAllDaemonsAndAShareOfOneProcessor(t *testing.T) {
	// one hundredth of each second
	ticks := int(idleFor.Seconds())
	got := usageFigures("idle", "trivet", bench.Memory{RSS: 2048, PSS: 1024}, ticks)
	want := map[string]float64{"RSS": 2, "PSS": 1, "time": 1}
	for _, f := range got {
		for part, value := range want {
			if strings.Contains(f.What, part) && f.Median != value {
				t.Errorf("%s: %v %s, want %v", f.What, f.Median, f.Unit, value)
			}
		}
	}

	if len(got) != 3 {
		t.Errorf("%d figures, want 3", len(got))
	}
}

func TestTableShowsBothSidesAndTheirRatio(t *testing.T) {
	var out strings.Builder
	ms := time.Millisecond
	twoNodes(&out).durations("Ready", [][]time.Duration{{10 * ms, 30 * ms, 20 * ms}, {200 * ms}})
	for _, want := range []string{
		"node1 p50    20 ms, max    30 ms", "ref1 p50   200 ms, max   200 ms", "ratio 1/10.0",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in %q", want, out.String())
		}
	}
}

func TestSpansOfAPicture(t *testing.T) {
	steps := bench.Steps{time.Millisecond, 2 * time.Millisecond, 0, 1549 * time.Microsecond, time.Second}
	rows := []picture.Row{rowOf(twoNodes(nil).rowName(0), steps), rowOf(twoNodes(nil).rowName(1), steps)}
	file := filepath.Join(t.TempDir(), "spans-pod.json")
	if err := writeSpans(file, 21, rows); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{
		"Medians of 21 pods",
		`"what": "trivet"`,
		`"what": "kubelet + containerd"`,
		`"took": 1.5`,
		`"took": 1000`,
	} {
		if !strings.Contains(string(data), want) {
			t.Errorf("%s is not in %s", want, data)
		}
	}

	if _, err := picture.File(file); err != nil {
		t.Error(err)
	}
}
