package swap

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Seat is a place on the node that is given to one state or another.
type Seat interface {
	// Arrange gives the seat to a state, and has the node's agent run with it, whatever a call before that
	// was cut off has left. What it changes can be undone by another Arrange.
	Arrange(ctx context.Context, to State, images []string) (Outage, error)

	// Settle takes away what only another state needs. It is repeated when it fails.
	Settle(ctx context.Context, in State) error

	// Check returns the process by which a state has the seat; zero: it does not run.
	Check(ctx context.Context, in State) (process int, err error)
}

// Outage is when the agent was stopped and started again (see Record); zero: it was not.
type Outage struct{ Stopped, Started time.Time }

// Machine carries out orders on the host, one at a time.
type Machine struct {
	Folder Folder
	Seat   Seat
	Log    *slog.Logger
}

// Limits of the machine.
const (
	// maxAttempts is how often it may be killed while it switches, and while the node is on trial, before
	// that is taken for a reason to go back.
	maxAttempts = 3

	// arrangeLimit bounds one attempt. What takes long in it is to copy images.
	arrangeLimit = 4 * time.Minute

	// settleTries is how often what is left over is tried to be taken away.
	settleTries = 5
)

// Run carries out the last order, unless that is done, and finishes one before it that was cut off.
func (m Machine) Run(ctx context.Context) error {
	for {
		record, err := m.next()
		if err != nil || record.Phase == Done {
			return err
		}

		for record.Phase != Done {
			if record, err = m.step(ctx, record); err != nil {
				return err
			}
		}
	}
}

// next is the record of what there is to do: of the order that is under way, else of the one that was given.
func (m Machine) next() (Record, error) {
	record, err := m.Folder.Record()
	if err != nil || (record.Phase != Done && record.Phase != "") {
		return record, err
	}

	order, err := m.Folder.Order()
	if err != nil || order.ID == "" || order.ID == record.Order.ID {
		record.Phase = Done
		return record, err
	}

	phase := Switching
	if order.To == record.State() && record.Left != "" {
		// It is for what is left over.
		phase = Settling
	}
	m.Log.Info("takes an order", "order", order.ID, "from", record.State(), "to", order.To, "phase", phase)
	return m.keep(Record{
		Order: order,
		From:  record.State(),
		Phase: phase,
		Taken: time.Now(),
	})
}

// keep writes the record before what it says is done.
func (m Machine) keep(r Record) (Record, error) { return r, m.Folder.write(recordFile, r) }

func (m Machine) step(ctx context.Context, r Record) (Record, error) {
	switch r.Phase {
	case Switching:
		return m.switchOver(ctx, r)
	case Trying, Proving:
		return m.try(ctx, r)
	case Settling:
		return m.settle(ctx, r)
	case Retreating:
		return m.retreat(ctx, r)
	case Reverting:
		return m.revert(ctx, r)
	}
	return r, fmt.Errorf("%s: there is no phase %q", m.Folder.Path(recordFile), r.Phase)
}

// switchOver arranges what is ordered.
func (m Machine) switchOver(ctx context.Context, r Record) (Record, error) {
	if r.Attempts++; r.Attempts > maxAttempts {
		return m.fail(r, Reverting, fmt.Errorf("it ended %d times before the node was switched", maxAttempts))
	}
	if r, err := m.keep(r); err != nil {
		return r, err
	}

	limited, cancel := context.WithTimeout(ctx, arrangeLimit)
	defer cancel()
	outage, err := m.Seat.Arrange(limited, r.Order.To, r.Order.Images)
	if ctx.Err() != nil {
		// It goes on when it is started again.
		return r, context.Cause(ctx)
	}
	if err != nil {
		return m.fail(r, Reverting, err)
	}

	switch {
	case !outage.Started.IsZero():
	case r.Attempts > 1:
		// The agent may have been stopped in an attempt before: what is newer than that proves something.
		outage = Outage{Stopped: r.Taken, Started: r.Taken.Truncate(time.Second).Add(time.Second)}
	default:
		outage.Started = time.Now()
	}

	r.Phase, r.Stopped, r.Switched = Trying, outage.Stopped, outage.Started
	r.Deadline = time.Now().Add(r.Order.Trial)
	m.Log.Info("the node is switched", "order", r.Order.ID, "to", r.Order.To, "deadline", r.Deadline)
	return m.keep(r)
}

// fail takes the order back, from a phase on.
func (m Machine) fail(r Record, from Phase, why error) (Record, error) {
	m.Log.Error("goes back", "order", r.Order.ID, "to", r.From, "phase", from, "err", why)
	r.Phase, r.Failure = from, why.Error()
	if from == Retreating {
		r.Deadline = time.Now().Add(retreatLimit)
	}
	return m.keep(r)
}

// revert arranges what was there before. There is nothing to go back to from here, so it is tried until it is
// done.
func (m Machine) revert(ctx context.Context, r Record) (Record, error) {
	pauses := retry.Backoff{First: time.Second, Max: 30 * time.Second}
	err := retry.Until(ctx, pauses, func(ctx context.Context) error {
		limited, cancel := context.WithTimeout(ctx, arrangeLimit)
		defer cancel()
		_, err := m.Seat.Arrange(limited, r.From, nil)
		if err != nil {
			m.Log.Error("cannot go back yet", "order", r.Order.ID, "err", err)
		}
		return err
	})
	if err != nil {
		return r, err
	}

	m.Log.Info("went back", "order", r.Order.ID, "to", r.From)
	r.Phase = Settling
	return m.keep(r)
}

// settle takes away what is not needed any more. What does not go is said, and is no reason to fail.
func (m Machine) settle(ctx context.Context, r Record) (Record, error) {
	pauses := retry.Backoff{First: time.Second, Max: 5 * time.Second}
	tries := 0
	var err error
	for range pauses.Attempts(ctx) {
		if err = m.Seat.Settle(ctx, r.State()); err == nil {
			break
		}
		m.Log.Warn("something is left over", "order", r.Order.ID, "err", err)
		if tries++; tries == settleTries {
			break
		}
	}
	if ctx.Err() != nil {
		return r, errors.Join(err, context.Cause(ctx))
	}

	r.Phase, r.Left = Done, ""
	if err != nil {
		r.Left = err.Error()
	}
	m.Log.Info("the order is done", "order", r.Order.ID, "state", r.State(), "failure", r.Failure)
	return m.keep(r)
}
