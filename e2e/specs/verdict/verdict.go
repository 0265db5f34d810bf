// Package verdict sums up a run of specs: what passed, what did not and why, and which exceptions are none.
package verdict

import (
	"fmt"
	"io"
	"strings"

	"github.com/trivet-node/trivet/e2e/specs/exceptions"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// Verdict on a run.
type Verdict struct {
	Passed []results.Record

	// Flaky are those that failed first and passed alone; Failed those that failed and are not excepted.
	Flaky, Failed []results.Record

	// Excepted failed for a reason that is known; Wrong passed in spite of one.
	Excepted, Wrong []results.Record

	Skipped []results.Record

	reasons exceptions.Exceptions
}

// Judge sums up records.
func Judge(records []results.Record, reasons exceptions.Exceptions) Verdict {
	v := Verdict{reasons: reasons}
	for _, r := range records {
		excepted := reasons[r.Spec] != ""
		switch r.State() {
		case results.Passed:
			v.Passed = append(v.Passed, r)
			if excepted {
				v.Wrong = append(v.Wrong, r)
			}

		case results.Flaky:
			v.Flaky = append(v.Flaky, r)
			if excepted {
				v.Wrong = append(v.Wrong, r)
			}

		case results.Skipped:
			v.Skipped = append(v.Skipped, r)
		case results.Failed:
			if excepted {
				v.Excepted = append(v.Excepted, r)
			} else {
				v.Failed = append(v.Failed, r)
			}
		}
	}

	return v
}

// Print prints what did not pass, with both attempts, and then the sums.
func (v Verdict) Print(out io.Writer) {
	for _, r := range v.Skipped {
		fmt.Fprintf(out, "skipped  %s\n         %s\n", r.Spec, reason(r.First))
	}

	for _, r := range v.Excepted {
		fmt.Fprintf(out, "excepted %s\n         %s\n", r.Spec, v.reasons[r.Spec])
	}

	for _, r := range v.Wrong {
		fmt.Fprintf(out, "%-8s %s\n         is an exception: %s\n", r.State(), r.Spec, v.reasons[r.Spec])
	}

	for _, r := range append(v.Flaky, v.Failed...) {
		fmt.Fprintf(out, "%-8s %s\n         %s\n", r.State(), r.Spec, attempts(r))
	}

	fmt.Fprintln(out, v)
}

func (v Verdict) String() string {
	return fmt.Sprintf("%d passed, %d flaky, %d failed, %d excepted, %d skipped",
		len(v.Passed), len(v.Flaky), len(v.Failed), len(v.Excepted), len(v.Skipped))
}

// attempts describes the first attempt, and the second if there was one.
func attempts(r results.Record) string {
	first := "first: " + reason(r.First)
	switch {
	case r.Second == nil:
		return first
	case r.Second.Outcome == suite.Passed:
		return first + "\n         alone: passed"
	}
	return first + "\n         alone: " + reason(*r.Second)
}

// reason is the message of an attempt, without what every reason of a skip begins with.
func reason(r suite.Result) string {
	if r.Message == "" {
		return string(r.Outcome)
	}
	return strings.TrimPrefix(r.Message, "skipped - ")
}

// Err is an error unless each spec has passed, was skipped by the suite, or is excepted.
func (v Verdict) Err() error {
	if bad := len(v.Flaky) + len(v.Failed); bad > 0 {
		return fmt.Errorf("%d specs did not pass", bad)
	}
	if n := len(v.Wrong); n > 0 {
		return fmt.Errorf("%d exceptions are none: their specs passed; remove them from "+
			"e2e/specs/exceptions/exceptions.txt", n)
	}
	return nil
}
