// Package unit makes, limits and stops slices through systemd's D-Bus interface
// (org.freedesktop.systemd1(5)). systemd overwrites what others write into its part of the tree of control
// groups, so that limits must be properties of its units.
package unit

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	systemd1 "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"

	"github.com/trivet-node/trivet/internal/systemd"
)

// callLimit bounds a request to systemd, the wait for its job included: a PID 1 that hangs must not make a
// worker hang as well.
const callLimit = 15 * time.Second

// Slices are systemd's slices. The first call makes the connection, and a later one makes another when
// systemd or the bus has been restarted. The zero value is ready for use.
type Slices struct {
	// mu guards conn, which all calls share.
	mu   sync.Mutex
	conn *systemd1.Conn

	// connect is another way to systemd, for tests. nil: the usual one.
	connect func() (*systemd1.Conn, error)
}

// Ensure starts a transient slice with these properties, or sets them for the one that is there.
func (s *Slices) Ensure(ctx context.Context, name string, limits []Property) error {
	ctx, cancel := withLimit(ctx)
	defer cancel()

	start := append(values(limits), sliceProperties(name)...)
	err := s.job(ctx, func(c *systemd1.Conn, done chan<- string) error {
		_, err := c.StartTransientUnitContext(ctx, name, "replace", start, done)
		return err
	})
	if !named(err, "UnitExists") {
		return wrap(err, "start slice "+name)
	}

	err = s.call(ctx, func(c *systemd1.Conn) error {
		return c.SetUnitPropertiesContext(ctx, name, true, values(limits)...)
	})
	if err != nil {
		return wrap(err, "set properties of slice "+name)
	}

	// A unit that exists need not run: the administrator may have written a file for it.
	err = s.job(ctx, func(c *systemd1.Conn, done chan<- string) error {
		_, err := c.StartUnitContext(ctx, name, "replace", done)
		return err
	})

	return wrap(err, "start slice "+name)
}

// Stop stops a slice and the units in it, and makes systemd forget them. One that systemd does not know is a
// success.
func (s *Slices) Stop(ctx context.Context, name string) error {
	ctx, cancel := withLimit(ctx)
	defer cancel()

	if err := s.stop(ctx, name); err != nil {
		return wrap(err, "stop slice "+name)
	}
	if !systemd.Transient(name) {
		return nil
	}

	// Systemd knows a slice as long as it knows a unit in it, and a scope that has failed until it is reset,
	// which not every container runtime does.
	within, err := s.within(ctx, name)
	if err != nil {
		return wrap(err, "list what is in slice "+name)
	}

	for _, unit := range within {
		if err := s.stop(ctx, unit); err != nil {
			return wrap(err, "stop "+unit+" in slice "+name)
		}
	}

	return nil
}

// stop stops one unit and resets it if it has failed. One that systemd does not know is a success.
func (s *Slices) stop(ctx context.Context, name string) error {
	err := s.job(ctx, func(c *systemd1.Conn, done chan<- string) error {
		_, err := c.StopUnitContext(ctx, name, "replace", done)
		return err
	})
	if err != nil && !named(err, "NoSuchUnit") {
		return err
	}

	// Otherwise systemd would remember one that has failed.
	err = s.call(ctx, func(c *systemd1.Conn) error { return c.ResetFailedUnitContext(ctx, name) })
	if named(err, "NoSuchUnit") {
		return nil
	}

	return err
}

// within returns the units that are directly in the slice: each of them requires it.
func (s *Slices) within(ctx context.Context, name string) ([]string, error) {
	var units []string
	err := s.call(ctx, func(c *systemd1.Conn) error {
		property, err := c.GetUnitPropertyContext(ctx, name, "RequiredBy")
		if err != nil {
			return err
		}
		units, _ = property.Value.Value().([]string)
		return nil
	})
	return units, err
}

// Close closes the connection. A later call makes another.
func (s *Slices) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
}

// drop closes a connection that is dead. One that another call has made meanwhile stays.
func (s *Slices) drop(dead *systemd1.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()

	dead.Close()
	if s.conn == dead {
		s.conn = nil
	}
}

// errLate: systemd takes too long.
var errLate = fmt.Errorf("systemd has not answered within %s", callLimit)

// errLost: the connection ended before the job did, as when systemd was restarted.
var errLost = errors.New("the connection to systemd was lost")

// job begins a job and waits for its end. When the connection is lost, it begins the job once more, which
// does no harm if the first has ended.
func (s *Slices) job(ctx context.Context, begin func(c *systemd1.Conn, done chan<- string) error) error {
	err := s.await(ctx, begin)
	if errors.Is(err, errLost) {
		err = s.await(ctx, begin)
	}
	return err
}

func (s *Slices) await(ctx context.Context, begin func(c *systemd1.Conn, done chan<- string) error) error {
	done := make(chan string, 1)
	var used *systemd1.Conn
	err := s.call(ctx, func(c *systemd1.Conn) error {
		used = c
		return begin(c, done)
	})
	if err != nil {
		return err
	}

	look := time.NewTicker(200 * time.Millisecond)
	defer look.Stop()

	for {
		select {
		case result := <-done:
			if result != "done" {
				return fmt.Errorf("systemd's job ended as %q", result)
			}

			return nil

		case <-look.C:
			if !used.Connected() {
				return errLost
			}

		// The connection stays open: systemd has answered on it, only this job is slow.
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// call calls f with a connection, and once more with another if it failed without an answer of systemd: the
// connection was dead.
func (s *Slices) call(ctx context.Context, f func(c *systemd1.Conn) error) error {
	const attempts = 2
	var err error
	for range attempts {
		var c *systemd1.Conn
		if c, err = s.connection(); err != nil {
			return fmt.Errorf("connect to systemd: %w", err)
		}
		if err = f(c); err == nil {
			return nil
		}

		// No answer in time means that the connection is dead as well, but not that the caller cancelled.
		if ctx.Err() != nil {
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				s.drop(c)
			}
			return context.Cause(ctx)
		}

		if _, answered := errors.AsType[dbus.Error](err); answered {
			return err
		}

		s.drop(c)
	}

	return err
}

func (s *Slices) connection() (*systemd1.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.conn != nil && s.conn.Connected() {
		return s.conn, nil
	}
	if s.conn != nil {
		s.conn.Close()
	}

	dial := s.connect
	if dial == nil {
		dial = connect
	}

	var err error
	s.conn, err = dial()
	return s.conn, err
}

// connect connects to systemd itself, or over the system bus where its own socket cannot be reached. A
// connection lives as long as the context that it is made with, so that this one is cancelled only if
// connecting takes too long.
func connect() (*systemd1.Conn, error) {
	life, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(callLimit, cancel)
	defer timer.Stop()

	c, direct := systemd1.NewSystemdConnectionContext(life)
	if direct == nil {
		return c, nil
	}

	c, bus := systemd1.NewSystemConnectionContext(life)
	if bus == nil {
		return c, nil
	}

	cancel()
	return nil, errors.Join(direct, bus)
}

func withLimit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, callLimit, errLate)
}

// named reports whether err is the error of that name, answered by systemd.
func named(err error, name string) bool {
	e, ok := errors.AsType[dbus.Error](err)
	return ok && e.Name == "org.freedesktop.systemd1."+name
}

func wrap(err error, what string) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
