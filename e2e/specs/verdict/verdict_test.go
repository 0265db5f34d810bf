package verdict

import (
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs/exceptions"
	"github.com/trivet-node/trivet/e2e/specs/results"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

var (
	passed  = suite.Result{Outcome: suite.Passed}
	failed  = suite.Result{Outcome: suite.Failed, Message: "boom"}
	skipped = suite.Result{Outcome: suite.Skipped, Message: "skipped - no SSH"}
)

func TestVerdictNeedsEverySpecToPassOrAReason(t *testing.T) {
	reasons := exceptions.Exceptions{"X": "kernel: no dummy links"}

	for name, test := range map[string]struct {
		record results.Record
		fault  string
	}{
		"passed":  {results.Record{Spec: "A", First: passed}, ""},
		"skipped": {results.Record{Spec: "A", First: skipped}, ""},
		"failed twice": {
			results.Record{Spec: "A", First: failed, Second: &failed},
			"1 specs did not pass",
		},
		"failed once": {results.Record{Spec: "A", First: failed}, "1 specs did not pass"},
		"flaky": {
			results.Record{Spec: "A", First: failed, Second: &passed},
			"1 specs did not pass",
		},
		"excepted":                 {results.Record{Spec: "X", First: failed, Second: &failed}, ""},
		"an exception that passes": {results.Record{Spec: "X", First: passed}, "1 exceptions are none"},
	} {
		err := Judge([]results.Record{test.record}, reasons).Err()
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %v, want %q", name, err, test.fault)
		}
	}
}

func TestBothAttemptsAreShown(t *testing.T) {
	other := suite.Result{Outcome: suite.Failed, Message: "boom again"}
	var out strings.Builder
	Judge([]results.Record{
		{Spec: "A", First: passed},
		{Spec: "B", First: failed, Second: &passed},
		{Spec: "C", First: failed, Second: &other},
		{Spec: "D", First: skipped},
		{Spec: "X", First: failed, Second: &failed},
		{Spec: "Y", First: passed},
	}, exceptions.Exceptions{"X": "kernel: x", "Y": "kernel: y"}).Print(&out)

	const want = `skipped  D
         no SSH
excepted X
         kernel: x
passed   Y
         is an exception: kernel: y
flaky    B
         first: boom
         alone: passed
failed   C
         first: boom
         alone: boom again
2 passed, 1 flaky, 1 failed, 1 excepted, 1 skipped
`
	if out.String() != want {
		t.Errorf("printed:\n%s", out.String())
	}
}
