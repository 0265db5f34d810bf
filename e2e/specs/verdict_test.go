package specs

import (
	"slices"
	"strings"
	"testing"
)

func TestVerdictNeedsEverySpecOfCritest(t *testing.T) {
	passed := Result{Outcome: Passed}
	noAppArmor := Result{Outcome: Skipped, Message: "skipped - AppArmor is disabled on this host"}
	all := append(slices.Repeat([]Result{passed}, 106), slices.Repeat([]Result{noAppArmor}, 30)...)
	for _, c := range []struct {
		name    string
		results []Result
		want    string // of the error
	}{
		{"all", all, ""},
		{"one less", all[1:], "135 specs"},
		{"one more", append(slices.Clone(all), passed), "137 specs"},
		{"none", nil, "0 specs"},
		{
			"a failure",
			append(slices.Clone(all[1:]), Result{Outcome: Failed}),
			"1 specs of critest did not pass",
		},
		{"an unknown reason", append(
			slices.Clone(all[1:]),
			Result{Outcome: Skipped, Message: "skipped - moon"},
		),
			"1 specs of critest did not pass"},
	} {
		err := Judge(c.results).Err()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestVerdictCountsSkipsByReason(t *testing.T) {
	var out strings.Builder
	Judge([]Result{
		{Outcome: Passed},
		{Outcome: Skipped, Message: "skipped - AppArmor is disabled on this host"},
		{Name: "bad", Outcome: Failed, Message: "boom"},
	}).Print(&out, "crun")
	const want = "failed  bad\n        boom\ncritest over crun: 1 passed, 1 failed\n1 skipped: this " +
		"kernel has no AppArmor\n"
	if out.String() != want {
		t.Errorf("printed:\n%s", out.String())
	}
}
