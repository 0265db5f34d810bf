package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// crowd is the name of the case with many pods, without upstream's plugins.
const crowd = "many pods"

const (
	// few and many are how many pods are there when ADD is measured.
	few, many = 10, 950
	// atOnce is how many ADDs and DELs are under way, of bursts pods each.
	atOnce = 32
	burst  = 320
)

// crowd measures ADD with few and with many pods present, beside the bare messages of netlink, and many at
// once.
func (o options) crowd(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp(o.dir, "cni-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	alone := cases[0]
	alone.upstream = ""
	sides, err := o.sides(dir, alone)
	for _, s := range sides {
		defer s.close()
	}
	if err != nil {
		return err
	}

	fmt.Fprintf(out, "\n%s, bridge + addresses\n", crowd)
	for _, s := range sides {
		if err := o.parallel(ctx, out, s); err != nil {
			return err
		}
	}

	present := 0
	for _, wanted := range []int{few, many} {
		if err := o.fill(ctx, sides, present, wanted); err != nil {
			return err
		}
		present = wanted
		if err := o.among(ctx, out, sides, present); err != nil {
			return err
		}
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
func (o options) among(ctx context.Context, out io.Writer, sides []*side, present int) error {
	for _, s := range sides {
		s.forget()
	}
	for i := range o.rounds {
		for _, s := range sides {
			if err := s.measure(ctx, present+i%50); err != nil {
				return err
			}
		}
	}

	for n, what := range []string{"ADD", "DEL"} {
		what = fmt.Sprintf("%s with %d pods present", what, present)
		for _, s := range sides {
			o.figures.Add(figure.Of("cni", what, s.name, s.took[n]))
			const format = "  %-27s %-13s %s   processor %5.1f\n"
			fmt.Fprintf(out, format, what, s.name, spread(s.took[n]), s.processor(n))
		}
	}
	return nil
}

// parallel measures how many pods are added and deleted in a second, many at once.
func (o options) parallel(ctx context.Context, out io.Writer, s *side) error {
	for _, step := range []struct {
		what string
		do   func(context.Context, int) (time.Duration, error)
	}{{"ADD", s.add}, {"DEL", s.del}} {
		began := time.Now()
		if err := inParallel(func(i int) error {
			_, err := step.do(ctx, i)
			return err
		}); err != nil {
			return err
		}

		rate := burst / time.Since(began).Seconds()
		what := fmt.Sprintf("%s, %d at once", step.what, atOnce)
		o.figures.Add(figure.Figure{
			Bench:  "cni",
			What:   what,
			Side:   s.name,
			Unit:   "1/s",
			Median: rate,
		})
		fmt.Fprintf(out, "  %-27s %-13s %6.0f /s\n", what, s.name, rate)
	}
	return nil
}

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
