package swap

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
)

// Limits of a trial.
const (
	// confirmPoll is how often the machine looks for the pod's word, processPoll for the process.
	confirmPoll = 100 * time.Millisecond
	processPoll = time.Second

	// While the node is in use, maxEnds processes may end, none may run for downLimit, and all of that takes
	// proveLimit longer than the proof at most.
	maxEnds    = 3
	downLimit  = 30 * time.Second
	proveLimit = 75 * time.Second

	// aliveLimit is how old the last sign of life of the node may be: that after which Kubernetes takes a
	// node for lost.
	aliveLimit = 40 * time.Second

	// retreatLimit is how long the pods that have come to the node meanwhile may take to go elsewhere.
	retreatLimit = 30 * time.Second
)

// sight is what the machine sees of a trial.
type sight struct {
	// confirmed is the pod's word that the node works, doubt why it does not give that.
	confirmed bool
	doubt     string

	// alive is the last sign of life of the node since it is in use; zero: none.
	alive time.Time

	// process has the seat; zero: none has. err is why that is not known. It has been so since then.
	process int
	err     error
	since   time.Time

	// ends is how often a process was followed by another one while the node is in use.
	ends int
}

func (s sight) runs() bool { return s.process != 0 && s.err == nil }

// lives reports whether the node does, and not only a process that may hang.
func (s sight) lives(now time.Time) bool { return now.Sub(s.alive) < aliveLimit }

// judge decides which phase a trial is in now. The error is why it has failed.
func judge(r Record, s sight, now time.Time) (Phase, error) {
	late := now.After(r.Deadline)
	unchanged := now.Sub(s.since)
	switch {
	case r.Phase == Trying && s.confirmed && s.runs():
		return Proving, nil
	case r.Phase == Trying && late:
		return Reverting, s.unconfirmed(r.Order.Trial)
	case r.Phase != Proving:
		return r.Phase, nil

	case s.runs() && unchanged >= r.Order.proof() && s.lives(now):
		return Settling, nil
	case s.ends >= maxEnds:
		return Retreating, fmt.Errorf("its process ended %d times while the node was in use", s.ends)
	case !s.runs() && unchanged >= downLimit:
		return Retreating, fmt.Errorf("no process has run for %s: %w", downLimit, s.last())
	case late && s.runs() && unchanged >= r.Order.proof():
		return Retreating, fmt.Errorf("nobody said that the node is Ready while it was in use: %w", s.last())
	case late:
		return Retreating, fmt.Errorf("no process has run for %s: %w", r.Order.proof(), s.last())
	}
	return r.Phase, nil
}

// unconfirmed is why nothing came of the phase Trying.
func (s sight) unconfirmed(limit time.Duration) error {
	if s.confirmed {
		return fmt.Errorf("no process runs after %s: %w", limit, s.last())
	}

	text := fmt.Sprintf("nobody confirmed within %s that the node works", limit)
	if s.doubt != "" {
		text += ": " + s.doubt
	}
	return errors.New(text)
}

// last is what was seen last of the process.
func (s sight) last() error {
	switch {
	case s.err != nil:
		return s.err
	case s.process == 0:
		return fmt.Errorf("none runs since %s", s.since.Format(time.TimeOnly))
	}
	return fmt.Errorf("process %d runs since %s", s.process, s.since.Format(time.TimeOnly))
}

// try waits for the pod's word, and then for the proof, while the node is in use.
func (m Machine) try(ctx context.Context, r Record) (Record, error) {
	switch r.Phase {
	case Trying:
		r.Deadline = within(r.Order.Trial, r.Deadline)
	case Proving:
		// It was cut off, may be by a reboot: the next process has its time, too.
		var err error
		if r, err = m.prove(r); err != nil || r.Phase != Proving {
			return r, err
		}
	}

	w := watch{seat: m.Seat, state: r.Order.To}
	for range retry.Every(ctx, confirmPoll) {
		s := w.look(ctx, time.Now())
		word := m.Folder.Word(r.Order.ID)
		s.confirmed, s.doubt, s.alive = word.Works, word.Doubt, word.Alive

		phase, why := judge(r, s, time.Now())
		switch {
		case why != nil:
			return m.fail(r, phase, why)
		case phase == Settling:
			m.Log.Info("one process lives on", "order", r.Order.ID, "process", s.process)
			r.Phase = Settling
			return m.keep(r)
		case phase == r.Phase:
			continue
		}

		m.Log.Info("the node works, and may be in use", "order", r.Order.ID, "process", s.process)
		w.seen.ends = 0
		r.Ready, r.Attempts = word.Ready, 0
		var err error
		if r, err = m.prove(r); err != nil {
			return r, err
		}
	}
	return r, context.Cause(ctx)
}

// within is a deadline that is no later than the limit from now on, and that no clock moves: one that was or
// is set back makes none longer.
func within(limit time.Duration, deadline time.Time) time.Time {
	return time.Now().Add(min(limit, time.Until(deadline)))
}

// prove begins the phase Proving, or begins it again.
func (m Machine) prove(r Record) (Record, error) {
	if r.Attempts++; r.Attempts > maxAttempts {
		return m.fail(r, Retreating, fmt.Errorf("it ended %d times while the node was on trial", maxAttempts))
	}
	r.Phase = Proving
	r.Deadline = time.Now().Add(r.Order.proof() + proveLimit)
	return m.keep(r)
}

// retreat waits until the pod has the node out of use again: its pods would be ended by the way back.
func (m Machine) retreat(ctx context.Context, r Record) (Record, error) {
	r.Deadline = within(retreatLimit, r.Deadline)
	for range retry.Every(ctx, confirmPoll) {
		drained := m.Folder.Word(r.Order.ID).Drained
		if drained || time.Now().After(r.Deadline) {
			m.Log.Info("begins the way back", "order", r.Order.ID, "drained", drained)
			r.Phase = Reverting
			return m.keep(r)
		}
	}
	return r, context.Cause(ctx)
}

// watch looks at the process by which a state has the seat.
type watch struct {
	seat  Seat
	state State

	// seen is what was seen last, at that time.
	seen sight
	at   time.Time

	// known is the process that was there last.
	known int
}

// look looks if it is time, and returns what was seen last.
func (w *watch) look(ctx context.Context, now time.Time) sight {
	if now.Sub(w.at) < processPoll {
		return w.seen
	}
	first := w.at.IsZero()
	w.at = now

	process, err := w.seat.Check(ctx, w.state)
	if first || process != w.seen.process || (err == nil) != (w.seen.err == nil) {
		w.seen.since = now
	}
	w.seen.process, w.seen.err = process, err

	if process != 0 && process != w.known {
		if w.known != 0 {
			w.seen.ends++
		}
		w.known = process
	}
	return w.seen
}
