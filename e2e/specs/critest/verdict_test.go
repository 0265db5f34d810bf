package critest

import (
	"slices"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/specs/suite"
)

func TestVerdictNeedsEverySpecOfCritest(t *testing.T) {
	passed := suite.Result{Outcome: suite.Passed}
	noAppArmor := suite.Result{Outcome: suite.Skipped, Message: "skipped - AppArmor is disabled on this host"}
	all := append(
		slices.Repeat([]suite.Result{passed}, 106),
		slices.Repeat([]suite.Result{noAppArmor}, 30)...,
	)

	failed := suite.Result{Outcome: suite.Failed}
	odd := suite.Result{Outcome: suite.Skipped, Message: "skipped - moon"}

	for name, c := range map[string]struct {
		results []suite.Result
		// fault is a part of the error; "" for none.
		fault string
	}{
		"all":      {all, ""},
		"one less": {all[1:], "135 specs"},
		"one more": {slices.Concat(all, []suite.Result{passed}), "137 specs"},
		"none":     {nil, "0 specs"},
		"a failure": {
			slices.Concat(all[1:], []suite.Result{failed}),
			"1 specs of critest did not pass",
		},
		"an unknown reason": {slices.Concat(all[1:], []suite.Result{odd}), "1 specs of critest did not pass"},
	} {
		err := Judge(c.results).Err()
		if (err == nil) != (c.fault == "") || err != nil && !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", name, err, c.fault)
		}
	}
}

func TestVerdictCountsSkipsByReason(t *testing.T) {
	var out strings.Builder
	Judge([]suite.Result{
		{Outcome: suite.Passed},
		{Outcome: suite.Skipped, Message: "skipped - AppArmor is disabled on this host"},
		{Name: "bad", Outcome: suite.Failed, Message: "boom"},
	}).Print(&out, "crun")
	const want = "failed  bad\n        boom\ncritest over crun: 1 passed, 1 failed\n1 skipped: this " +
		"kernel has no AppArmor\n"
	if out.String() != want {
		t.Errorf("printed:\n%s", out.String())
	}
}
