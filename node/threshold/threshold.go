// Package threshold reads kubelet's thresholds of eviction: how little of a resource may be left before the
// node is under pressure, and for how long.
package threshold

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
)

// Signals are what can be measured.
const (
	Memory            = "memory.available"
	AllocatableMemory = "allocatableMemory.available"
	NodeFS            = "nodefs.available"
	NodeFSInodes      = "nodefs.inodesFree"
	ImageFS           = "imagefs.available"
	ImageFSInodes     = "imagefs.inodesFree"
	ContainerFS       = "containerfs.available"
	ContainerFSInodes = "containerfs.inodesFree"
	PIDs              = "pid.available"
)

// signals are all of them, in the order in which thresholds are listed.
var signals = []string{
	Memory, AllocatableMemory, NodeFS, NodeFSInodes, ImageFS, ImageFSInodes, ContainerFS, ContainerFSInodes,
	PIDs,
}

// Known reports whether there is a signal of that name.
func Known(signal string) bool { return slices.Contains(signals, signal) }

// Amount is an amount of a resource, or a share of its capacity. The zero value is nothing.
type Amount struct {
	quantity resource.Quantity

	// share is of 1, with kubelet's precision, and counts when it is not zero.
	share float32
}

// Quantity returns the amount as messages have it: one that was given as a quantity in its own format, a
// share of the capacity in binary units.
func (a Amount) Quantity(capacity int64) resource.Quantity {
	if a.share != 0 {
		return *resource.NewQuantity(int64(float64(capacity)*float64(a.share)), resource.BinarySI)
	}
	return a.quantity.DeepCopy()
}

// Of is the amount in units of the resource: bytes, inodes or processes.
func (a Amount) Of(capacity int64) int64 {
	q := a.Quantity(capacity)
	return q.Value()
}

// Threshold is how much must be left of a resource.
type Threshold struct {
	Signal string
	Amount Amount

	// Grace is how long less may be left. A threshold without one is hard.
	Grace time.Duration

	// Reclaim is how much more must be left before a threshold that was crossed no longer counts as crossed.
	Reclaim Amount
}

// Hard reports whether the threshold must not be crossed at all.
func (t Threshold) Hard() bool { return t.Grace == 0 }

// Crossed reports whether less is left than the threshold allows.
func (t Threshold) Crossed(left, capacity int64) bool { return left < t.Amount.Of(capacity) }

// Unresolved reports whether less is left than the threshold allows and Reclaim asks for.
func (t Threshold) Unresolved(left, capacity int64) bool {
	return left < t.Amount.Of(capacity)+t.Reclaim.Of(capacity)
}

// Statements are thresholds as a KubeletConfiguration states them, by signal.
type Statements struct {
	Hard           map[string]string
	Soft           map[string]string
	SoftGrace      map[string]string
	MinimumReclaim map[string]string

	// OfPods means that all pods together have a limit of memory, to which the hard threshold of memory
	// applies as well.
	OfPods bool
}

// List reads the thresholds: the hard ones, then the soft ones, each in the order of their signals. Those
// that nothing can cross are left out.
func (s Statements) List() ([]Threshold, error) {
	hard, err := ParseSet(s.Hard)
	if err != nil {
		return nil, fmt.Errorf("hard threshold: %w", err)
	}

	soft, err := ParseSet(s.Soft)
	if err != nil {
		return nil, fmt.Errorf("soft threshold: %w", err)
	}

	if _, stated := hard[AllocatableMemory]; s.OfPods && !stated {
		hard[AllocatableMemory] = hard[Memory]
	}

	out := append(hard.list(), soft.list()...)
	for i := range out {
		t := &out[i]
		if t.Reclaim, err = s.reclaim(t.Signal); err != nil {
			return nil, fmt.Errorf("minimum reclaim of %s: %w", t.Signal, err)
		}
	}

	for i := len(hard.list()); i < len(out); i++ {
		t := &out[i]
		if t.Grace, err = time.ParseDuration(s.SoftGrace[t.Signal]); err != nil {
			return nil, fmt.Errorf("grace period of %s: %w", t.Signal, err)
		}
	}

	return out, nil
}

// reclaim reads the minimum reclaim of a signal; that of the memory of pods is that of memory.
func (s Statements) reclaim(signal string) (Amount, error) {
	text, stated := s.MinimumReclaim[signal]
	if !stated && signal == AllocatableMemory {
		text, stated = s.MinimumReclaim[Memory]
	}
	if !stated {
		return Amount{}, nil
	}
	return ParseReclaim(text)
}

// Parse reads "500Mi" or "10%".
func Parse(text string) (Amount, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 32)
		if err != nil || math.IsNaN(percent) || percent < 0 || percent > 100 {
			return Amount{}, fmt.Errorf("%q is not a percentage between 0%% and 100%%", text)
		}

		// as in kubelet: switched off
		if percent == 100 {
			percent = 0
		}

		return Amount{share: float32(percent) / 100}, nil
	}

	q, err := resource.ParseQuantity(text)
	if err != nil {
		return Amount{}, fmt.Errorf("%q: %w", text, err)
	}
	if q.Sign() <= 0 {
		return Amount{}, fmt.Errorf("%q must be positive", text)
	}

	return Amount{quantity: q}, nil
}

// ParseReclaim reads what Parse reads, and a quantity of zero.
func ParseReclaim(text string) (Amount, error) {
	if q, err := resource.ParseQuantity(text); err == nil && q.IsZero() && !strings.HasSuffix(text, "%") {
		return Amount{}, nil
	}
	return Parse(text)
}

// Set is an amount for each signal that has one.
type Set map[string]Amount

// ParseSet reads evictionHard or evictionSoft.
func ParseSet(statements map[string]string) (Set, error) {
	out := Set{}
	for _, signal := range slices.Sorted(maps.Keys(statements)) {
		if !Known(signal) {
			return nil, fmt.Errorf("%s is not an eviction signal", signal)
		}

		a, err := Parse(statements[signal])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", signal, err)
		}

		out[signal] = a
	}

	return out, nil
}

// list returns a threshold for each amount that something can be less than.
func (s Set) list() []Threshold {
	var out []Threshold
	for _, signal := range signals {
		if a := s[signal]; a != (Amount{}) {
			out = append(out, Threshold{Signal: signal, Amount: a})
		}
	}
	return out
}
