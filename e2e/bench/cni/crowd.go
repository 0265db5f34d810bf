package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// crowd is the name of the case with many pods, without upstream's plugins.
const crowd = "many pods"

const (
	// few and many are how many pods are there when ADD is measured.
	few, many = 10, 950
	// atOnce is how many ADDs and DELs are under way, of burst pods, as often as bursts for each side.
	atOnce = 32
	burst  = 320
	bursts = 5
)

// Goals: how many ADDs a second at once, and what an ADD with many pods takes of the time of one with few.
const (
	goalAtOnce = 350
	goalMany   = 1.3
)

// crowd measures ADD with few and with many pods present, beside the bare messages of netlink, and many at
// once.
func (o options) crowd(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp(o.dir, "cni-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	// The table has columns for two sides.
	o.before = ""
	alone := cases[0]
	alone.upstream = ""
	sides, err := o.sides(dir, alone)
	for _, s := range sides {
		defer s.close()
	}
	if err != nil {
		return err
	}

	fmt.Fprint(out, crowdHead)
	if err := o.parallel(ctx, out, sides); err != nil {
		return err
	}

	present := 0
	var withFew [2]float64
	for _, wanted := range []int{few, many} {
		if err := o.fill(ctx, sides, present, wanted); err != nil {
			return err
		}
		present = wanted
		if err := o.among(ctx, sides, present); err != nil {
			return err
		}

		cell := ""
		now := [2]float64{sides[0].median(0), sides[1].median(0)}
		if present == few {
			withFew = now
		} else {
			text := fmt.Sprintf("%g times that with %d", goalMany, few)
			isMet := func(n int) bool { return rounded(now[n]/withFew[n]) <= goalMany }
			cell = goalBeside(text, isMet(0), isMet(1))
		}
		o.reportAmong(out, sides, present, cell)
	}

	for i := range present {
		for _, s := range sides {
			if _, err := s.del(ctx, i); err != nil {
				return err
			}
		}
	}

	return nil
}

// fill adds pods until there are so many.
func (o options) fill(ctx context.Context, sides []*side, present, wanted int) error {
	for ; present < wanted; present++ {
		for _, s := range sides {
			if _, err := s.add(ctx, present); err != nil {
				return err
			}
		}
	}
	return nil
}

// among measures both sides in turns with some pods present.
func (o options) among(ctx context.Context, sides []*side, present int) error {
	for _, s := range sides {
		s.forget()
	}
	for i := range o.rounds {
		for _, s := range inTurn(sides, i) {
			if err := s.measure(ctx, present+i%50); err != nil {
				return err
			}
		}
	}
	return nil
}

// reportAmong prints the figures with some pods present, those of ADD with its goal.
func (o options) reportAmong(out io.Writer, sides []*side, present int, goal string) {
	for n, what := range operations {
		what = fmt.Sprintf("%s with %d pods present", what, present)
		cells := []string{what}
		for _, s := range sides {
			o.figures.Add(figure.Of("cni", what, s.name, s.took[n]))
			cells = append(cells, fmt.Sprintf("%s, CPU %.1f", spread(s.took[n]), s.processor(n)))
		}
		printRow(out, append(cells, goal)...)
		goal = ""
	}
}

// parallel measures how many pods are added and deleted in a second, many at once, by bursts in turns.
func (o options) parallel(ctx context.Context, out io.Writer, sides []*side) error {
	rates := make([][2][]float64, len(sides))
	for range bursts {
		for i, s := range sides {
			for n, do := range []func(context.Context, int) (time.Duration, error){s.add, s.del} {
				began := time.Now()
				if err := inParallel(func(i int) error {
					_, err := do(ctx, i)
					return err
				}); err != nil {
					return err
				}
				rates[i][n] = append(rates[i][n], burst/time.Since(began).Seconds())
			}
		}
	}

	cells := []string{fmt.Sprintf("%d at once, %d bursts of %d", atOnce, bursts, burst)}
	for i, s := range sides {
		var words []string
		for n, what := range operations {
			f := rate(fmt.Sprintf("%s, %d at once", what, atOnce), s.name, rates[i][n])
			o.figures.Add(f)
			words = append(words, fmt.Sprintf("%.0f %s/s", f.Median, what))
		}
		cells = append(cells, strings.Join(words, ", "))
	}

	isMet := func(n int) bool { return math.Round(middle(rates[n][0])) >= goalAtOnce }
	text := fmt.Sprintf("%d ADD/s", goalAtOnce)
	printRow(out, append(cells, goalBeside(text, isMet(0), isMet(1)))...)
	return nil
}

// rate is the figure of rates a second.
func rate(what, side string, all []float64) figure.Figure {
	return figure.Figure{
		Bench:  "cni",
		What:   what,
		Side:   side,
		Unit:   "1/s",
		Median: rounded(middle(all)),
		Min:    rounded(slices.Min(all)),
		Max:    rounded(slices.Max(all)),
		Count:  len(all),
	}
}

func middle(all []float64) float64 { return slices.Sorted(slices.Values(all))[len(all)/2] }

// inParallel calls f with the number of each pod of a burst, and returns an error of one of the calls.
func inParallel(f func(i int) error) error {
	numbers := make(chan int, burst)
	for i := range burst {
		numbers <- i
	}
	close(numbers)

	failures := make(chan error, burst)
	var workers sync.WaitGroup
	for range atOnce {
		workers.Go(func() {
			for i := range numbers {
				if err := f(i); err != nil {
					failures <- err
				}
			}
		})
	}
	workers.Wait()

	close(failures)
	return <-failures
}
