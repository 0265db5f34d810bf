// Package results keeps the results of specs in files of JSON lines: the first line says what was tested,
// then there is one for each attempt at a spec. A file grows line by line while specs run (Log), so that a
// run which is cut off goes on where it was, and a finished one is committed as data for docs/conformance.md.
package results

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// Subject is what was tested. Results of different subjects are not mixed.
type Subject struct {
	// Suite is the version of e2e.test.
	Suite string `json:"suite"`

	// Commit is that of the source, with -dirty if files were changed; Programs the digest of the programs of
	// ours that were tested.
	Commit   string `json:"commit"`
	Programs string `json:"programs,omitempty"`

	// Seats are the programs in the seats of the nodes: "trivet-node trivet-cri trivet-cni crun".
	Seats string `json:"seats"`
	Nodes int    `json:"nodes"`

	// Machine is what it ran on: "2 cores, Linux 6.18.0, cgroup v1"; Date the day on which it began.
	Machine string `json:"machine,omitempty"`
	Date    string `json:"date,omitempty"`
}

// Same reports whether results of both subjects may be in one file: the day may be another one.
func (s Subject) Same(other Subject) bool {
	s.Date, other.Date = "", ""
	return s == other
}

// Record is what is known of one spec.
type Record struct {
	Spec string

	// First is the result among the other specs. Second is that of another attempt, made alone after a
	// failure; nil if there was none.
	First  suite.Result
	Second *suite.Result
}

// State of a spec after all attempts.
type State string

// The states. Flaky is a spec that failed at first and then passed alone: it has not passed.
const (
	Passed  State = "passed"
	Flaky   State = "flaky"
	Failed  State = "failed"
	Skipped State = "skipped"
)

// State sums up the attempts.
func (r Record) State() State {
	switch {
	case r.First.Outcome == suite.Passed:
		return Passed
	case r.First.Outcome == suite.Skipped:
		return Skipped
	case r.Second != nil && r.Second.Outcome == suite.Passed:
		return Flaky
	}
	return Failed
}

// Took is how long the attempt took that ended as State says.
func (r Record) Took() time.Duration {
	if r.Second != nil {
		return r.Second.Took
	}
	return r.First.Took
}

// Message is the reason of a failure or a skip.
func (r Record) Message() string {
	if r.Second != nil {
		return cmp.Or(r.Second.Message, r.First.Message)
	}
	return r.First.Message
}

// Set are records by the name of their spec.
type Set map[string]Record

// add takes one attempt. A later result of the same attempt replaces an earlier one.
func (s Set) add(r suite.Result, again bool) {
	record := s[r.Name]
	record.Spec = r.Name
	if again {
		record.Second = &r
	} else {
		record.First = r
	}

	s[r.Name] = record
}

// Of are the records of these specs.
func (s Set) Of(names []string) Set {
	some := Set{}
	for _, n := range names {
		if r, ran := s[n]; ran {
			some[n] = r
		}
	}
	return some
}

// Sorted are the records by name.
func (s Set) Sorted() []Record {
	records := make([]Record, 0, len(s))
	for _, r := range s {
		records = append(records, r)
	}

	slices.SortFunc(records, func(a, b Record) int { return strings.Compare(a.Spec, b.Spec) })
	return records
}

// Times are how long the specs took that ran to their end.
func (s Set) Times() map[string]time.Duration {
	times := map[string]time.Duration{}
	for name, r := range s {
		if r.State() == Passed || r.State() == Flaky {
			times[name] = r.Took()
		}
	}
	return times
}
