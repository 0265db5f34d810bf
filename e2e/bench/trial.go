package bench

import (
	"fmt"
	"slices"
	"time"
)

// Trial is what was done once took: by the clock on the wall, and of processors.
type Trial struct{ Took, CPU time.Duration }

// Trials are those of one thing on one side.
type Trials []Trial

// Times are the times that they took, sorted.
func (t Trials) Times() []time.Duration {
	var all []time.Duration
	for _, one := range t {
		all = append(all, one.Took)
	}
	slices.Sort(all)
	return all
}

// CPU is the mean of their processor time.
func (t Trials) CPU() time.Duration {
	var sum time.Duration
	for _, one := range t {
		sum += one.CPU
	}
	return sum / time.Duration(max(1, len(t)))
}

// String is the median (minimum, maximum) of the times, and the processor time, in seconds, as two columns of
// a table. There must be one trial at least.
func (t Trials) String() string {
	times := t.Times()
	return fmt.Sprintf("%.2f (%.2f, %.2f) | %.2f", Median(times).Seconds(),
		times[0].Seconds(), times[len(times)-1].Seconds(), t.CPU().Seconds())
}
