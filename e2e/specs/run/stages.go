package run

import (
	"slices"
	"time"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// longTime is from when on a spec is begun first of all: ginkgo begins specs in any order, and one that takes
// half of the time of a run and is begun last makes the run half as long again.
const longTime = 5 * time.Minute

// serialProcs are those of a batch of which all specs run alone: with ginkgo, which shows the end of each.
const serialProcs = 2

// stage is what runs at the same time.
type stage []suite.Batch

// stages divides specs: first those that can run beside others, the long ones in a batch of their own; then
// the [Serial] ones; in the end those that are [Disruptive], but not [Serial], each by itself, as ginkgo
// would run them beside others.
func stages(names []string, times specs.Times, procs int) []stage {
	if procs <= 1 {
		return each(names)
	}

	var together, long, serial, alone []string
	for _, n := range names {
		switch {
		case specs.IsSerial(n):
			serial = append(serial, n)
		case specs.IsDisruptive(n):
			alone = append(alone, n)
		case times.Of(n) >= longTime:
			long = append(long, n)
		default:
			together = append(together, n)
		}
	}

	first := batch("long", long, len(long))
	first = append(first, batch("together", together, procs)...)
	all := []stage{first, batch("serial", serial, serialProcs)}
	all = slices.DeleteFunc(all, func(s stage) bool { return len(s) == 0 })
	return append(all, each(alone)...)
}

// batch is a stage of one batch; empty without specs.
func batch(name string, names []string, procs int) stage {
	if len(names) == 0 {
		return nil
	}
	return stage{{Name: name, Specs: names, Procs: procs}}
}

// each are stages of one spec.
func each(names []string) []stage {
	all := make([]stage, len(names))
	for i, n := range names {
		all[i] = batch("alone", []string{n}, 1)
	}
	return all
}
