package main

import (
	"fmt"
	"io"
	"math"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// Heads of the tables, which are as docs/benchmarks.md has them.
const (
	caseHead = `
| | ADD trivet-cni | ADD upstream | ratio | CPU ms | DEL trivet-cni | DEL upstream | ratio | goal ADD, DEL |
|---|---|---|---|---|---|---|---|---|
`
	crowdHead = `
| many pods | trivet-cni | bare netlink | goal |
|---|---|---|---|
`
)

// goals are what trivet-cni is to take at most, 0 where there is no goal.
type goals struct {
	// upstream are the parts of upstream's time for ADD and DEL: 3 is a third.
	upstream [2]float64
	// bare is how many times the time of bare netlink an ADD takes.
	bare float64
	add  time.Duration
}

// goal is a cell for a goal, which says so if it is missed.
func goal(text string, isMet bool) string {
	if !isMet {
		text += " (missed)"
	}
	return text
}

// goalBeside is a cell for a goal, which says so if bare netlink missed it in the same run, too.
func goalBeside(text string, isMet, bareMeets bool) string {
	if !isMet && !bareMeets {
		return text + " (missed, also by " + bare + ")"
	}
	return goal(text, isMet)
}

// printRow prints cells as a row of a table.
func printRow(out io.Writer, cells ...string) {
	fmt.Fprint(out, "|")
	for _, c := range cells {
		fmt.Fprint(out, " ", strings.TrimLeft(c+" ", " "), "|")
	}
	fmt.Fprintln(out)
}

// report prints a case as a row, and bare netlink as another one, and writes the figures.
func report(out io.Writer, figures *figure.Writer, c testCase, sides []*side) {
	ours := sides[0]
	for n, what := range operations {
		for _, s := range sides {
			object := c.name + ": " + what
			if s.name == bare {
				// A picture compares trivet with one other side.
				object = bare + ", " + object
			}
			figures.Add(figure.Of("cni", object, s.name, s.took[n]))
		}
	}

	var upstream, floor *side
	var beside [][]string
	for _, s := range sides[1:] {
		switch s.name {
		case bare:
			floor = s
			beside = append(beside, s.row(ours, c.goals.bare))
		case earlier:
			beside = append(beside, s.row(ours, 0))
		default:
			upstream = s
		}
	}

	printRow(out, c.row(ours, upstream, floor)...)
	for _, row := range beside {
		printRow(out, row...)
	}
}

// operations are what is measured.
var operations = [2]string{"ADD", "DEL"}

// row has the figures of ours and, unless that is nil, upstream's. Its goals are marked that floor, unless
// that is nil, misses as well.
func (c testCase) row(ours, upstream, floor *side) []string {
	cells := []string{strings.Replace(c.name, byNames, "", 1)}
	var wanted []string
	for n := range operations {
		theirs, ratio, processor := "", "", fmt.Sprintf("%.1f", ours.processor(n))
		if upstream != nil {
			theirs = spread(upstream.took[n])
			parts := rounded(upstream.median(n) / ours.median(n))
			ratio = "1/" + inDigits(parts)
			processor += fmt.Sprintf(", %.1f", upstream.processor(n))
			if g := c.goals.upstream[n]; g != 0 {
				bareMeets := floor == nil || rounded(upstream.median(n)/floor.median(n)) >= g
				wanted = append(wanted, goalBeside(fmt.Sprintf("1/%g", g), parts >= g, bareMeets))
			}
		}

		cells = append(cells, spread(ours.took[n]), theirs, ratio)
		if n == 0 {
			cells = append(cells, processor)
		}
	}

	if most := c.goals.add; most != 0 {
		text := fmt.Sprintf("ADD %d ms", most.Milliseconds())
		wanted = append(wanted, goal(text, rounded(ours.median(0)) <= float64(most.Milliseconds())))
	}
	return append(cells, strings.Join(wanted, ", "))
}

// row has the figures of a side beside trivet-cni, and how many times its time trivet-cni takes: at most so
// many for an ADD, 0 where there is no goal.
func (s *side) row(ours *side, most float64) []string {
	times := [2]float64{}
	for n := range operations {
		times[n] = ours.median(n) / s.median(n)
	}

	wanted := ""
	if most != 0 {
		wanted = goal(fmt.Sprintf("ADD %g times", most), rounded(times[0]) <= most)
	}
	return []string{
		s.name,
		spread(s.took[0]), "", s.times(times[0]), fmt.Sprintf("%.1f", s.processor(0)),
		spread(s.took[1]), "", s.times(times[1]), wanted,
	}
}

// times is a ratio to a side. Two of trivet-cni differ by little.
func (s *side) times(n float64) string {
	if s.name == earlier {
		return fmt.Sprintf("%.2f times", n)
	}
	return inDigits(rounded(n)) + " times"
}

// median is that of ADD or DEL in ms.
func (s *side) median(n int) float64 { return quantile(s.took[n], 50).Seconds() * 1000 }

// rounded is a number as a table shows it: a goal is met if it is by what is shown.
func rounded(n float64) float64 { return math.Round(n*10) / 10 }

// inDigits has no more digits than a measurement is worth.
func inDigits(n float64) string {
	if n >= 10 {
		return fmt.Sprintf("%.0f", n)
	}
	return fmt.Sprintf("%.1f", n)
}

func spread(all []time.Duration) string {
	return fmt.Sprintf("%.1f / %.1f", quantile(all, 50).Seconds()*1000, quantile(all, 95).Seconds()*1000)
}
