package critest

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/trivet-node/trivet/e2e/specs/suite"
)

// critestSpecs is how many specs critest v1.37.0 has, without those that are left out. How many of them pass
// depends on the kernel: without AppArmor, 114 pass and 22 are skipped.
const critestSpecs = 136

// Verdict sums up a run of critest.
type Verdict struct {
	Passed  int
	Skipped map[string]int // for reasons that are known, with our explanation
	Bad     []suite.Result // failed, or skipped for another reason
}

// Judge sums up the results of Run.Do.
func Judge(results []suite.Result) Verdict {
	v := Verdict{Skipped: map[string]int{}}
	for _, r := range results {
		why := whySkipped(r)
		switch {
		case r.Outcome == suite.Passed:
			v.Passed++
		case r.Outcome == suite.Skipped && why != "":
			v.Skipped[why]++
		default:
			v.Bad = append(v.Bad, r)
		}
	}

	return v
}

// Print prints the verdict. over names the OCI runtime.
func (v Verdict) Print(out io.Writer, over string) {
	for _, r := range v.Bad {
		fmt.Fprintf(out, "%-7s %s\n        %s\n", r.Outcome, r.Name, r.Message)
	}

	fmt.Fprintf(out, "critest over %s: %d passed, %d failed\n", over, v.Passed, len(v.Bad))
	for _, why := range slices.Sorted(maps.Keys(v.Skipped)) {
		fmt.Fprintf(out, "%d skipped: %s\n", v.Skipped[why], why)
	}
}

// Err is an error unless every spec of critest has run and passed, or was skipped for a reason that is known.
func (v Verdict) Err() error {
	if len(v.Bad) > 0 {
		return fmt.Errorf("%d specs of critest did not pass", len(v.Bad))
	}

	ran := v.Passed
	for _, n := range v.Skipped {
		ran += n
	}

	if ran != critestSpecs {
		return fmt.Errorf("critest has reported %d specs, want %d", ran, critestSpecs)
	}

	return nil
}
