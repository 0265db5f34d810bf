package volume

import (
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/space"
)

// bytesOf returns what is promised, by ID.
func bytesOf(p *promises, ids ...string) map[string]int64 {
	bytes := map[string]int64{}
	for _, id := range ids {
		if promise, ok := p.of(id); ok {
			bytes[id] = promise.Bytes
		}
	}
	return bytes
}

func TestCopiesTogetherKeepWhatOneOfThemKeeps(t *testing.T) {
	p := newPromises()
	snapshot := func(bytes int64) Spec {
		return Spec{Backend: "pool", Size: 100, Snapshot: true, Keeps: map[string]int64{"v": bytes}}
	}

	for _, step := range []struct {
		name string
		do   func()
		want map[string]int64
	}{
		{"a volume", func() { p.set("v", Spec{Backend: "pool", Size: 100}) }, map[string]int64{"v": 100}},
		{"a snapshot", func() { p.set("a", snapshot(60)) }, map[string]int64{"v": 160, "a": 0}},
		{"a later one", func() { p.set("b", snapshot(90)) }, map[string]int64{"v": 190, "a": 0, "b": 0}},
		{"said again", func() { p.set("b", snapshot(90)) }, map[string]int64{"v": 190, "a": 0, "b": 0}},
		{"the volume is gone", func() { p.remove("v") }, map[string]int64{"v": 90, "a": 0, "b": 0}},
		{"the later one, too", func() { p.remove("b") }, map[string]int64{"v": 60, "a": 0}},
		{"nothing is left", func() { p.remove("a") }, map[string]int64{}},
	} {
		step.do()
		got := bytesOf(p, "v", "a", "b")
		if len(got) != len(step.want) {
			t.Errorf("%s: %v, want %v", step.name, got, step.want)
		}
		for id, bytes := range step.want {
			if got[id] != bytes {
				t.Errorf("%s: %v, want %v", step.name, got, step.want)
			}
		}
	}
}

func TestPromisesOfACopyAreThoseThatDiffer(t *testing.T) {
	p := newPromises()
	p.set("v", Spec{Backend: "pool", Size: 100})
	clone := Spec{Backend: "pool", Size: 50, Keeps: map[string]int64{"v": 40}}
	got := p.with("clone", clone)
	want := []space.Promise{
		{ID: "clone", Backend: "pool", Bytes: 50},
		{ID: "v", Backend: "pool", Bytes: 140},
	}
	if !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if bytes := bytesOf(p, "v", "clone"); len(bytes) != 1 || bytes["v"] != 100 {
		t.Errorf("afterwards %v are promised", bytes)
	}
}
