package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
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
