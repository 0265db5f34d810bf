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

// crowd is the name of the case with many pods, of trivet-cni alone.
const crowd = "many pods"

const (
	// few and many are how many pods are there when ADD is measured.
	few, many = 10, 950
	// atOnce is how many ADDs and DELs are under way, of bursts pods each.
	atOnce = 32
	burst  = 320
)

// crowd measures ADD with few and with many pods present, and many at once.
func (o options) crowd(ctx context.Context, out io.Writer) error {
	dir, err := os.MkdirTemp(o.dir, "cni-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	s, err := o.ours(dir, cases[0])
	if err != nil {
		return err
	}
	defer s.close()

	fmt.Fprintf(out, "\n%s, bridge + addresses\n", crowd)
	if err := o.parallel(ctx, out, s); err != nil {
		return err
	}

	present := 0
	for _, wanted := range []int{few, many} {
		for ; present < wanted; present++ {
			if _, err := s.add(ctx, present); err != nil {
				return err
			}
		}

		s.forget()
		for i := range o.rounds {
			if err := s.measure(ctx, wanted+i%50); err != nil {
				return err
			}
		}
		for n, what := range []string{"ADD", "DEL"} {
			what = fmt.Sprintf("%s with %d pods present", what, present)
			o.figures.Add(figure.Of("cni", what, figure.Ours, s.took[n]))
			fmt.Fprintf(out, "  %-27s %s   processor %5.1f\n", what, spread(s.took[n]), s.processor(n))
		}
	}

	for i := range present {
		if _, err := s.del(ctx, i); err != nil {
			return err
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
			Side:   figure.Ours,
			Unit:   "1/s",
			Median: rate,
		})
		fmt.Fprintf(out, "  %-27s %6.0f /s\n", what, rate)
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
