// Package suite runs test programs that are made with ginkgo, such as the published end-to-end suite of
// Kubernetes (e2e.test). It chooses specs by exact name, follows what the program prints, and reads the
// JUnit report that it leaves.
package suite

import (
	"fmt"
	"io"
	"time"
)

// Outcome of one spec.
type Outcome string

// The outcomes. Missing is a name that the suite does not have: a wrong list, or another version of the
// suite.
const (
	Passed  Outcome = "passed"
	Failed  Outcome = "failed"
	Skipped Outcome = "skipped"
	Missing Outcome = "missing"
)

// Result of one spec.
type Result struct {
	Name    string
	Outcome Outcome
	Took    time.Duration

	// Message is the first line of a failure, or of the reason of a skip.
	Message string
}

// Print returns a function that prints a line for each spec that has ended. total is how many there are; 0 if
// that is not known.
func Print(out io.Writer, total int) func(Result) {
	of := ""
	if total > 0 {
		of = fmt.Sprintf("/%d", total)
	}

	n := 0
	return func(r Result) {
		n++
		fmt.Fprintf(out, "%3d%s %-7s %6.1fs %s\n", n, of, r.Outcome, r.Took.Seconds(), r.Name)
	}
}
