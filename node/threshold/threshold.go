// Package threshold reads kubelet's thresholds of eviction: how little of a resource may be left before the
// node is under pressure.
package threshold

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

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

var signals = []string{
	Memory, AllocatableMemory, NodeFS, NodeFSInodes, ImageFS, ImageFSInodes, ContainerFS, ContainerFSInodes,
	PIDs,
}

// Known reports whether there is a signal of that name.
func Known(signal string) bool { return slices.Contains(signals, signal) }

// Threshold is an amount, or a share of the capacity. The zero value is never crossed.
type Threshold struct {
	Amount int64
	Share  float64 // of 1; counts when it is not zero
}

// Set is a threshold for each signal that has one.
type Set map[string]Threshold

// Parse reads "500Mi" or "10%".
func Parse(text string) (Threshold, error) {
	if number, ok := strings.CutSuffix(text, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || math.IsNaN(percent) || percent < 0 || percent > 100 {
			return Threshold{}, fmt.Errorf("%q is not a percentage between 0%% and 100%%", text)
		}

		// as in kubelet: switched off
		if percent == 100 {
			percent = 0
		}

		return Threshold{Share: percent / 100}, nil
	}

	q, err := resource.ParseQuantity(text)
	if err != nil {
		return Threshold{}, fmt.Errorf("%q: %w", text, err)
	}
	if q.Sign() <= 0 {
		return Threshold{}, fmt.Errorf("%q must be positive", text)
	}

	return Threshold{Amount: q.Value()}, nil
}

// ParseSet reads evictionHard or evictionSoft.
func ParseSet(statements map[string]string) (Set, error) {
	out := Set{}
	for _, signal := range slices.Sorted(maps.Keys(statements)) {
		if !Known(signal) {
			return nil, fmt.Errorf("%s is not an eviction signal", signal)
		}

		t, err := Parse(statements[signal])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", signal, err)
		}

		out[signal] = t
	}

	return out, nil
}

// Of is the threshold as an amount.
func (t Threshold) Of(capacity int64) int64 {
	if t.Share != 0 {
		return int64(t.Share * float64(capacity))
	}
	return t.Amount
}

// Crossed reports whether less is left of a resource than the threshold of a signal allows.
func (s Set) Crossed(signal string, left, capacity int64) bool { return left < s[signal].Of(capacity) }
