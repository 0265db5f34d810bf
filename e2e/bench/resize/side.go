package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/podresize"
	"github.com/trivet-node/trivet/internal/retry"
)

// side is one of the nodes that are compared. Its Bench makes pods of one case.
type side struct {
	bench.Bench
	node    string
	name    string // in figures
	machine *machine.Machine
}

const (
	// limit is how long a wait may take.
	limit = 3 * time.Minute

	// settle is how long a daemon may go on with a resize after the status has shown it, and idleFor how long
	// daemons are watched that have nothing to do.
	settle  = 2 * time.Second
	idleFor = 10 * time.Second

	// inParallel is how many requests are sent at the same time, chunk how many pods are started at once: the
	// API server ends a watch that falls behind by more.
	inParallel = 16
	chunk      = 30
)

func (s *side) podOf(c testCase) string { return c.name + "-" + s.node }

// start creates pods of a case and waits until they are ready.
func (s *side) start(ctx context.Context, c testCase, names []string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()

	s.Change = c.change
	for some := range slices.Chunk(names, chunk) {
		if err := s.Start(ctx, s.node, some); err != nil {
			return fmt.Errorf("start of pods on %s: %w", s.node, err)
		}
	}

	return nil
}

// resize patches pods at once, and returns how long it took from the first that a watch showed with it in its
// specification until all of them showed it in their statuses.
func (s *side) resize(ctx context.Context, c testCase, names []string, isUp bool) (time.Duration, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not within %s", limit))
	defer cancel()

	patch, err := json.Marshal(c.patch(isUp))
	if err != nil {
		return 0, err
	}

	f, err := s.follow(ctx)
	if err != nil {
		return 0, err
	}
	defer f.stop()

	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(1 + inParallel)
	answers := make(chan answer, len(names))
	var took time.Duration
	group.Go(func() (err error) {
		took, err = f.await(ctx, len(names), answers)
		return err
	})

	for _, name := range names {
		group.Go(func() error {
			a, err := s.patch(ctx, c, name, patch)
			if err == nil {
				answers <- a
			}

			return err
		})
	}

	err = group.Wait()
	return took, err
}

// patch asks for a resize of one pod.
func (s *side) patch(ctx context.Context, c testCase, name string, patch []byte) (answer, error) {
	pod, err := s.Client.CoreV1().Pods(namespace).Patch(
		ctx, name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "resize")
	if err != nil {
		return answer{}, fmt.Errorf("resize %s: %w", name, err)
	}

	w := podresize.Want{Generation: pod.Generation}
	for _, status := range pod.Status.ContainerStatuses {
		w.Restarts = status.RestartCount
	}

	if c.restarts {
		w.Restarts++
	}

	return answer{name: name, want: w}, nil
}

// burstCost is what resizes of many pods at once have taken.
type burstCost struct {
	took []time.Duration

	// cpu is the processor time of agent and runtime, with the programs that they have run, for each of them
	// beyond what they use anyway, which is the share idle of a processor.
	cpu  []time.Duration
	idle float64
}

// burst resizes many pods at once, up and down in turns.
func (s *side) burst(ctx context.Context, c testCase, pods, times int) (burstCost, error) {
	names := bench.Names(s.podOf(c), pods)
	if err := s.start(ctx, c, names); err != nil {
		return burstCost{}, err
	}

	cost, err := s.bursts(ctx, c, names, times)
	return cost, errors.Join(err, s.Stop(ctx, names))
}

func (s *side) bursts(ctx context.Context, c testCase, names []string, times int) (burstCost, error) {
	// What the starts of the pods have left to do is over.
	if err := retry.Sleep(ctx, idleFor); err != nil {
		return burstCost{}, err
	}

	daemons := bench.Daemons(s.machine.Processes())
	start, before := time.Now(), clock(daemons)
	if err := retry.Sleep(ctx, idleFor); err != nil {
		return burstCost{}, err
	}

	cost := burstCost{idle: float64(clock(daemons)-before) / float64(time.Since(start))}
	for i := range times {
		start, before = time.Now(), clock(daemons)
		took, err := s.resize(ctx, c, names, i%2 == 0)
		if err != nil {
			return cost, err
		}
		if err := retry.Sleep(ctx, settle); err != nil {
			return cost, err
		}

		anyway := time.Duration(cost.idle * float64(time.Since(start)))
		cost.took = append(cost.took, took)
		cost.cpu = append(cost.cpu, clock(daemons)-before-anyway)
	}

	return cost, nil
}

// clock is the processor time of daemons and of the programs that they have run.
func clock(daemons []int) time.Duration {
	const tick = 10 * time.Millisecond
	return bench.Clock(daemons) + time.Duration(bench.ChildrenOf(daemons))*tick
}
