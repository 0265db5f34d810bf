// Package progress shows how far a run of specs is: what is done, what is left, what has failed so far, and
// how long it will take by the times that the specs took before.
package progress

import (
	"fmt"
	"io"
	"time"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// Progress of a run.
type Progress struct {
	out   io.Writer
	times specs.Times
	procs int

	total  int
	failed int
	left   map[string]bool

	// expected and taken are the sums of the times of what has ended: as they were known, and as they were.
	expected, taken time.Duration
}

// New returns the progress of a run of total specs of which these are left, as many at the same time as procs
// says. failed have failed before.
func New(out io.Writer, times specs.Times, procs, total, failed int, left []string) *Progress {
	p := &Progress{
		out:    out,
		times:  times,
		procs:  procs,
		total:  total,
		failed: failed,
		left:   map[string]bool{},
	}

	for _, n := range left {
		p.left[n] = true
	}

	return p
}

// Ended prints a line for a spec that has ended.
func (p *Progress) Ended(r suite.Result) {
	delete(p.left, r.Name)
	p.expected += p.times.Of(r.Name)
	p.taken += r.Took
	if r.Outcome == suite.Failed {
		p.failed++
	}

	fmt.Fprintf(p.out, "%d/%d (%d failed, %s left) %s %.1fs %s\n", p.total-len(p.left), p.total, p.failed,
		p.Left().Round(time.Second), r.Outcome, r.Took.Seconds(), r.Name)
}

// Left is about how long the rest takes: those that run in parallel, but at least the longest of them, then
// the others. It follows the pace of those that have ended.
func (p *Progress) Left() time.Duration {
	var sum, longest, alone time.Duration
	for name := range p.left {
		took := p.times.Of(name)
		if specs.IsSerial(name) {
			alone += took
			continue
		}

		sum += took
		longest = max(longest, took)
	}

	all := max(sum/time.Duration(max(p.procs, 1)), longest) + alone
	return time.Duration(float64(all) * p.pace())
}

// slowest and fastest bound the pace: the first specs of a run say little about the others.
const (
	slowest = 3
	fastest = 0.3
)

// pace is how many times as long as expected specs take.
func (p *Progress) pace() float64 {
	if p.expected == 0 {
		return 1
	}
	return min(max(float64(p.taken)/float64(p.expected), fastest), slowest)
}
