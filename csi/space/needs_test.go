package space

import (
	"slices"
	"testing"
)

// bytesOf returns what is promised, by ID.
func bytesOf(p *Needs, ids ...string) map[string]int64 {
	bytes := map[string]int64{}
	for _, id := range ids {
		if promise, ok := p.Of(id); ok {
			bytes[id] = promise.Bytes
		}
	}
	return bytes
}

func TestCopiesTogetherKeepWhatOneOfThemKeeps(t *testing.T) {
	p := NewNeeds()
	snapshot := func(bytes int64) Need {
		return Need{Backend: "pool", Keeps: map[string]int64{"v": bytes}}
	}

	type bytes = map[string]int64
	for _, step := range []struct {
		name string
		do   func()
		want bytes
	}{
		{"a volume", func() { p.Set("v", Need{Backend: "pool", Bytes: 100}) }, bytes{"v": 100}},
		{"a snapshot", func() { p.Set("a", snapshot(60)) }, bytes{"v": 160, "a": 0}},
		{"a later one", func() { p.Set("b", snapshot(90)) }, bytes{"v": 190, "a": 0, "b": 0}},
		{"said again", func() { p.Set("b", snapshot(90)) }, bytes{"v": 190, "a": 0, "b": 0}},
		{"the volume is gone", func() { p.Remove("v") }, bytes{"v": 90, "a": 0, "b": 0}},
		{"the later one, too", func() { p.Remove("b") }, bytes{"v": 60, "a": 0}},
		{"nothing is left", func() { p.Remove("a") }, bytes{}},
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
	p := NewNeeds()
	p.Set("v", Need{Backend: "pool", Bytes: 100})
	clone := Need{Backend: "pool", Bytes: 50, Keeps: map[string]int64{"v": 40}}
	got := p.With([]string{"clone"}, []Need{clone})
	want := []Promise{
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
