package main

import (
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// measured is a side of which ADD and DEL have taken so many milliseconds.
func measured(name string, add, del int) *side {
	s := &side{name: name}
	for n, ms := range []int{add, del} {
		s.took[n] = []time.Duration{time.Duration(ms) * time.Millisecond}
		s.burned[n] = s.took[n][0] / 2
	}
	return s
}

func TestAGoalThatIsMissedIsMarked(t *testing.T) {
	for _, c := range []struct {
		what         string
		goals        goals
		upstream     *side
		floor        *side
		row, bareRow string
	}{
		{
			"met", goals{upstream: [2]float64{3, 4}, bare: 1.3},
			measured("upstream plugins", 30, 41), measured(bare, 8, 5),
			"| x | 10.0 / 10.0 | 30.0 / 30.0 | 1/3.0 | 5.0, 15.0 | 10.0 / 10.0 | 41.0 / 41.0 | 1/4.1 | " +
				"1/3, 1/4 |",
			"| bare netlink | 8.0 / 8.0 | | 1.3 times | 4.0 | 5.0 / 5.0 | | 2.0 times | ADD 1.3 times |",
		},
		{
			"missed", goals{upstream: [2]float64{3, 4}, bare: 1.2},
			measured("upstream plugins", 29, 100), measured(bare, 8, 5),
			"| x | 10.0 / 10.0 | 29.0 / 29.0 | 1/2.9 | 5.0, 14.5 | 10.0 / 10.0 | 100.0 / 100.0 | 1/10 | " +
				"1/3 (missed), 1/4 |",
			"| bare netlink | 8.0 / 8.0 | | 1.3 times | 4.0 | 5.0 / 5.0 | | 2.0 times | " +
				"ADD 1.2 times (missed) |",
		},
		{
			"missed by both", goals{upstream: [2]float64{3, 4}},
			measured("upstream plugins", 29, 39), measured(bare, 8, 10),
			"| x | 10.0 / 10.0 | 29.0 / 29.0 | 1/2.9 | 5.0, 14.5 | 10.0 / 10.0 | 39.0 / 39.0 | 1/3.9 | " +
				"1/3 (missed), 1/4 (missed, also by bare netlink) |",
			"| bare netlink | 8.0 / 8.0 | | 1.3 times | 4.0 | 10.0 / 10.0 | | 1.0 times | |",
		},
		{
			"alone", goals{add: 8 * time.Millisecond}, nil, nil,
			"| x | 10.0 / 10.0 | | | 5.0 | 10.0 / 10.0 | | | ADD 8 ms (missed) |", "",
		},
	} {
		sides := []*side{measured(figure.Ours, 10, 10)}
		want := c.row + "\n"
		if c.upstream != nil {
			sides = append(sides, c.upstream, c.floor)
			want += c.bareRow + "\n"
		}

		var out strings.Builder
		report(&out, figure.NewWriter(""), testCase{name: "x" + byNames, goals: c.goals}, sides)
		if out.String() != want {
			t.Errorf("%s: it prints\n%s, want\n%s", c.what, out.String(), want)
		}
	}
}

func TestTheMiddleOfBurstsIsTheirFigure(t *testing.T) {
	f := rate("ADD", figure.Ours, []float64{300, 100.04, 350, 310, 20})
	if f.Median != 300 || f.Min != 20 || f.Max != 350 || f.Count != 5 {
		t.Errorf("%+v", f)
	}
}
