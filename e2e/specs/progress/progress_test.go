package progress

import (
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/specs"
	"github.com/trivet-node/trivet/e2e/specs/suite"
)

var times = specs.Times{
	"a":          time.Minute,
	"b":          time.Minute,
	"c":          4 * time.Minute,
	"d [Serial]": 2 * time.Minute,
}

func TestTimeLeftFollowsTheTimesOfSpecs(t *testing.T) {
	for name, test := range map[string]struct {
		procs int
		left  []string
		want  time.Duration
	}{
		"none":                         {2, nil, 0},
		"in parallel":                  {2, []string{"a", "b"}, time.Minute},
		"bounded by the longest":       {8, []string{"a", "b", "c"}, 4 * time.Minute},
		"those that run alone, at end": {2, []string{"a", "b", "d [Serial]"}, 3 * time.Minute},
		"one after the other":          {1, []string{"a", "b", "c"}, 6 * time.Minute},
		"of which nothing is known":    {1, []string{"x"}, 15 * time.Second},
	} {
		p := New(&strings.Builder{}, times, test.procs, 10, 0, test.left)
		if got := p.Left(); got != test.want {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
	}
}

func TestTimeLeftFollowsThePaceWithinBounds(t *testing.T) {
	for took, want := range map[time.Duration]time.Duration{
		time.Minute:      4 * time.Minute,
		2 * time.Minute:  8 * time.Minute,
		10 * time.Minute: 12 * time.Minute,
		time.Second:      72 * time.Second,
	} {
		p := New(&strings.Builder{}, times, 1, 2, 0, []string{"a", "c"})
		p.Ended(suite.Result{Name: "a", Outcome: suite.Passed, Took: took})
		if got := p.Left(); got != want {
			t.Errorf("after %s instead of a minute: %s left, want %s", took, got, want)
		}
	}
}

func TestEachSpecThatEndsIsALine(t *testing.T) {
	var out strings.Builder
	p := New(&out, times, 2, 5, 1, []string{"a", "b"})
	p.Ended(suite.Result{Name: "a", Outcome: suite.Failed, Took: time.Minute})
	p.Ended(suite.Result{Name: "b", Outcome: suite.Passed, Took: time.Minute})
	const want = "4/5 (2 failed, 1m0s left) failed 60.0s a\n5/5 (2 failed, 0s left) passed 60.0s b\n"
	if out.String() != want {
		t.Errorf("printed:\n%s", out.String())
	}
}
