package eviction

import (
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/memoryalarm"
	"github.com/trivet-node/trivet/node/threshold"
)

// Observed is how much is left of a resource, and how much there is of it: in bytes, inodes or processes.
type Observed struct {
	Left     int64
	Capacity int64
	Time     time.Time

	// Group is the control group whose memory it is, empty for other resources. Cached is what of Left is in
	// use as page cache.
	Group  string
	Cached int64
}

// Observation is what was measured at one time, by signal. A signal that is not in it could not be measured.
type Observation map[string]Observed

// conditions are those that a node has when there is too little by a signal.
var conditions = map[string]v1.NodeConditionType{
	threshold.Memory:            v1.NodeMemoryPressure,
	threshold.AllocatableMemory: v1.NodeMemoryPressure,
	threshold.NodeFS:            v1.NodeDiskPressure,
	threshold.NodeFSInodes:      v1.NodeDiskPressure,
	threshold.ImageFS:           v1.NodeDiskPressure,
	threshold.ImageFSInodes:     v1.NodeDiskPressure,
	threshold.ContainerFS:       v1.NodeDiskPressure,
	threshold.ContainerFSInodes: v1.NodeDiskPressure,
	threshold.PIDs:              v1.NodePIDPressure,
}

// crossing names a threshold among the others.
type crossing struct {
	signal string
	grace  time.Duration
}

func crossingOf(t threshold.Threshold) crossing { return crossing{t.Signal, t.Grace} }

// history is what is known from the looks before.
type history struct {
	// hold is how long a pressure is shown after it was last seen, so that a node at the edge does not change
	// with each look.
	hold time.Duration

	// since is when the thresholds were first seen to be crossed that still count as crossed.
	since map[crossing]time.Time

	// met are the thresholds that were crossed for as long as their grace, and have not been resolved.
	met []threshold.Threshold

	// seen is when each pressure was last seen.
	seen map[v1.NodeConditionType]time.Time
}

func newHistory(hold time.Duration) *history {
	return &history{hold: hold, seen: map[v1.NodeConditionType]time.Time{}}
}

// verdict is what a look leads to.
type verdict struct {
	// Pressure are the conditions that the node has, sorted.
	Pressure []v1.NodeConditionType

	// Met are the thresholds to act on, the most urgent one first.
	Met []threshold.Threshold

	// Due is when the next grace of a soft threshold ends; the zero time: none has begun.
	Due time.Time
}

// judge decides by what was observed now, in the way of kubelet's eviction manager.
func (h *history) judge(all []threshold.Threshold, seen Observation, now time.Time) verdict {
	var out verdict
	var met []threshold.Threshold
	since := map[crossing]time.Time{}

	for _, t := range all {
		if !h.counts(t, seen) {
			continue
		}

		began, before := h.since[crossingOf(t)]
		if !before {
			began = now
		}

		since[crossingOf(t)] = began
		h.seen[conditions[t.Signal]] = now

		over := began.Add(t.Grace)
		switch {
		case !now.Before(over):
			met = append(met, t)
		case out.Due.IsZero() || over.Before(out.Due):
			out.Due = over
		}
	}

	h.since, h.met = since, met
	maps.DeleteFunc(h.seen, func(_ v1.NodeConditionType, last time.Time) bool {
		return !last.Equal(now) && now.Sub(last) >= h.hold
	})

	out.Pressure = slices.Sorted(maps.Keys(h.seen))
	out.Met = byUrgency(met)
	return out
}

// counts reports whether a threshold counts as crossed: it is, or it was and the minimum reclaim is not
// reached.
func (h *history) counts(t threshold.Threshold, seen Observation) bool {
	o, measured := seen[t.Signal]
	if !measured {
		return false
	}

	same := func(x threshold.Threshold) bool { return crossingOf(x) == crossingOf(t) }
	return t.Crossed(o.Left, o.Capacity) ||
		t.Unresolved(o.Left, o.Capacity) && slices.ContainsFunc(h.met, same)
}

// byUrgency orders thresholds: memory comes before all else, as a machine without any does nothing.
func byUrgency(met []threshold.Threshold) []threshold.Threshold {
	out := slices.Clone(met)
	slices.SortStableFunc(out, func(a, b threshold.Threshold) int {
		return compareBool(ofMemory(a.Signal), ofMemory(b.Signal))
	})
	return out
}

func ofMemory(signal string) bool {
	return signal == threshold.Memory || signal == threshold.AllocatableMemory
}

// compareBool orders true before false.
func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return -1
	}
	return 1
}

// unresolved reports whether a threshold is crossed, or its minimum reclaim not reached.
func unresolved(t threshold.Threshold, seen Observation) bool {
	o, measured := seen[t.Signal]
	return measured && t.Unresolved(o.Left, o.Capacity)
}

// near reports whether a threshold is crossed or may soon be: little more is left than it allows, or it would
// be crossed within a while if things go on as they did since the look before.
func near(all []threshold.Threshold, before, seen Observation, while time.Duration) bool {
	return slices.ContainsFunc(all, func(t threshold.Threshold) bool {
		o, measured := seen[t.Signal]
		if !measured {
			return false
		}

		limit := t.Amount.Of(o.Capacity)
		above := o.Left - limit
		if above < max(limit, o.Capacity/20) {
			return true
		}

		old, known := before[t.Signal]
		passed := o.Time.Sub(old.Time)
		if !known || passed <= 0 {
			return false
		}

		lost := float64(old.Left-o.Left) / passed.Seconds() * while.Seconds()
		return lost > float64(above)
	})
}

// aims are the usages of memory at which thresholds will be crossed: of each control group the lowest that is
// not reached.
func aims(all []threshold.Threshold, seen Observation) []memoryalarm.Aim {
	var out []memoryalarm.Aim
	for _, t := range all {
		o, measured := seen[t.Signal]
		if !measured || o.Group == "" {
			continue
		}

		aim := memoryalarm.Aim{
			Group: o.Group,
			Now:   o.Capacity - o.Left + o.Cached,
			Limit: o.Capacity - t.Amount.Of(o.Capacity) + o.Cached,
		}
		if aim.Limit <= aim.Now {
			continue
		}

		known := slices.IndexFunc(out, func(x memoryalarm.Aim) bool { return x.Group == aim.Group })
		switch {
		case known < 0:
			out = append(out, aim)
		case aim.Limit < out[known].Limit:
			out[known] = aim
		}
	}

	return out
}
