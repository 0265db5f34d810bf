package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// StepNames are the steps of a pod's start, in order.
var StepNames = []string{
	"a node is chosen",
	"sandbox created",
	"container created",
	"container started",
	"seen Ready",
}

// Steps is how long each step of one pod's start took, in the order of StepNames.
type Steps []time.Duration

// Dated is when a runtime says that it made the sandbox and the only container of a pod. A runtime chooses
// the moment itself, for instance the beginning or the end of the call.
type Dated struct{ Sandbox, Container, Started time.Time }

// Runtime is the CRI server of a node.
type Runtime interface {
	// Dates returns those of a pod that is Ready.
	Dates(ctx context.Context, namespace, pod string) (Dated, error)
}

// Steps runs one pod on the node until it is Ready, asks the node's runtime for its dates, and deletes it.
func (b *Bench) Steps(ctx context.Context, node, name string, runtime Runtime) (steps Steps, err error) {
	lives, err := b.watch(ctx)
	if err != nil {
		return nil, err
	}
	defer lives.stop()

	asked := time.Now()
	if err := b.create(ctx, node, name); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Stop(context.WithoutCancel(ctx), []string{name})) }()

	ready, err := lives.await(ctx, []string{name}, readyAt)
	if err != nil {
		return nil, fmt.Errorf("wait for pod %s on %s to be Ready: %w", name, node, err)
	}

	dated, err := runtime.Dates(ctx, b.Namespace, name)
	if err != nil {
		return nil, fmt.Errorf("dates of pod %s on %s: %w", name, node, err)
	}

	scheduled := lives.seen[name].scheduled
	steps = stepsBetween(asked, scheduled, dated.Sandbox, dated.Container, dated.Started, ready)
	return steps, retry.Sleep(ctx, runTime)
}

// stepsBetween returns how long it took from each moment to the next one. A watch may show a step here later
// than it shows it to the node, which goes on at once: the step had ended when the next one did.
func stepsBetween(moments ...time.Time) Steps {
	moments = slices.Clone(moments)
	for i := len(moments) - 2; i >= 0; i-- {
		if moments[i].After(moments[i+1]) {
			moments[i] = moments[i+1]
		}
	}

	steps := make(Steps, len(moments)-1)
	for i := range steps {
		steps[i] = moments[i+1].Sub(moments[i])
	}
	return steps
}

// MedianSteps returns the median of each step.
func MedianSteps(all []Steps) Steps {
	medians := make(Steps, len(StepNames))
	for i := range medians {
		var took []time.Duration
		for _, steps := range all {
			took = append(took, steps[i])
		}
		medians[i] = Median(took)
	}
	return medians
}
