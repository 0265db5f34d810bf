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

// Outage is when the agent was stopped and started again; zero: it was not.
type Outage struct{ Stopped, Started time.Time }

// Machine carries out orders on the host, one at a time.
type Machine struct {
	Folder Folder
	Seat   Seat
	Log    *slog.Logger
}

// Limits of the machine.
const (
	// maxAttempts is how often it may be killed while it switches, before that is taken for a reason to go
	// back.
	maxAttempts = 3

	// arrangeLimit bounds one attempt. What takes long in it is to copy images.
	arrangeLimit = 4 * time.Minute

	// settleTries is how often what is left over is tried to be taken away.
	settleTries = 5

	// confirmPoll is how often it looks for the confirmation, processPoll for the process.
	confirmPoll = 100 * time.Millisecond
	processPoll = time.Second

	// proof is how long one process has to have run before an order is settled: one that ends and is started
	// again may look well at a glance.
	proof = 45 * time.Second
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
	if err != nil || order.ID == record.Order.ID {
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
	case Trying:
		return m.await(ctx, r)
	case Settling:
		return m.settle(ctx, r)
	case Reverting:
		return m.revert(ctx, r)
	}
	return r, fmt.Errorf("%s: there is no phase %q", m.Folder.Path(recordFile), r.Phase)
}

// switchOver arranges what is ordered.
func (m Machine) switchOver(ctx context.Context, r Record) (Record, error) {
	if r.Attempts++; r.Attempts > maxAttempts {
		return m.fail(r, fmt.Errorf("it ended %d times before the node was switched", maxAttempts))
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
		return m.fail(r, err)
	}

	switch {
	case !outage.Started.IsZero():
	case r.Attempts > 1:
		// The agent may have been stopped in an attempt before: only what is newer than that proves
		// something.
		outage = Outage{Stopped: r.Taken, Started: r.Taken}
	default:
		outage.Started = time.Now()
	}

	r.Phase, r.Stopped, r.Switched = Trying, outage.Stopped, outage.Started
	r.Deadline = time.Now().Add(r.Order.Trial)
	m.Log.Info("the node is switched", "order", r.Order.ID, "to", r.Order.To, "deadline", r.Deadline)
	return m.keep(r)
}

// await waits for the pod's word, and for the proof.
func (m Machine) await(ctx context.Context, r Record) (Record, error) {
	w := watch{seat: m.Seat, state: r.Order.To}
	for range retry.Every(ctx, confirmPoll) {
		w.look(ctx)
		ready, confirmed := m.Folder.Confirmed(r.Order.ID)
		now := time.Now()
		switch {
		case confirmed && w.proven(now):
			m.Log.Info("the node works", "order", r.Order.ID, "process", w.process)
			r.Phase, r.Ready = Settling, ready
			return m.keep(r)
		case !confirmed && now.After(r.Deadline):
			return m.fail(r, fmt.Errorf("nobody confirmed within %s that the node is Ready", r.Order.Trial))
		case now.After(r.Deadline.Add(proof + processPoll)):
			return m.fail(r, fmt.Errorf("no process has run for %s: %w", proof, w.why()))
		}
	}
	return r, context.Cause(ctx)
}

// watch looks at the process by which a state has the seat.
type watch struct {
	seat  Seat
	state State

	// process is the one that was seen last, since and last are when it was seen first and last.
	process     int
	since, last time.Time

	err error
}

// look looks if it is time.
func (w *watch) look(ctx context.Context) {
	now := time.Now()
	if now.Sub(w.last) < processPoll {
		return
	}
	w.last = now

	process, err := w.seat.Check(ctx, w.state)
	if err != nil || process != w.process {
		w.since = now
	}
	w.process, w.err = process, err
}

// proven reports whether the process has run for long enough.
func (w *watch) proven(now time.Time) bool {
	return w.process != 0 && w.err == nil && now.Sub(w.since) >= proof
}

// why is what was seen last.
func (w *watch) why() error {
	if w.err != nil {
		return w.err
	}
	return fmt.Errorf("process %d runs since %s", w.process, w.since.Format(time.TimeOnly))
}

// fail takes the order back.
func (m Machine) fail(r Record, why error) (Record, error) {
	m.Log.Error("goes back", "order", r.Order.ID, "to", r.From, "err", why)
	r.Phase, r.Failure = Reverting, why.Error()
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
