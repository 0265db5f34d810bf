package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/trivet-node/trivet/cri/life"
	"github.com/trivet-node/trivet/cri/record"
)

// Stop ends the network and the namespaces of a sandbox, by its whole ID. Its containers must have been
// stopped. A sandbox that is stopped or does not exist is success.
func (s *Service) Stop(ctx context.Context, id string) error {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	r, err := s.Get(id)
	if err != nil || r.State == life.Stopped && !r.Network && r.InitPid == 0 {
		return nil
	}

	// First of all it takes no containers any more.
	if r, err = s.records.Change(id, (*Record).stop); err != nil {
		return err
	}
	if err := s.teardown(ctx, &r); err != nil {
		return fmt.Errorf("stop pod sandbox %s: %w", id, err)
	}

	_, err = s.records.Change(id, func(kept *Record) bool {
		kept.Network = r.Network
		kept.InitPid = r.InitPid
		return true
	})

	return err
}

// stop notes that the sandbox is not ready any more. It reports whether it was.
func (r *Record) stop() bool {
	if r.State != life.Ready {
		return false
	}
	r.State = life.Stopped
	r.Stopped = time.Now()
	return true
}

// InitEnded notes that the init of a shared PID namespace has ended, and with it all that ran there: the
// sandbox is not ready any more, and the client will make another. It reports whether the sandbox was ready
// until now. It takes no lock by ID: Stop ends that init while it holds it.
func (s *Service) InitEnded(id string) (wasReady bool, err error) {
	_, err = s.records.Change(id, func(r *Record) bool {
		wasReady = life.EndsWithInit(r.State) && r.stop()
		return wasReady
	})
	if errors.Is(err, record.ErrNotFound) {
		return false, nil
	}
	return wasReady, err
}

// teardown releases what the kernel and the network hold, and notes in r what is released. It goes on when a
// step fails, so that a broken CNI plugin holds nothing but its own state.
func (s *Service) teardown(ctx context.Context, r *Record) error {
	var errs []error
	if r.Network {
		err := s.cfg.Network.Teardown(ctx, s.attachment(*r))
		r.Network = err != nil
		errs = append(errs, err)
	}

	if r.sharesPID() {
		err := s.inits.remove(ctx, *r)
		if err == nil {
			r.InitPid = 0
		}

		errs = append(errs, err)
	}

	errs = append(errs, s.namespaces.remove(*r), s.cfg.Kernel.Unmount(s.shm(r.ID)))
	return errors.Join(errs...)
}

// Remove stops a sandbox, by its whole ID, and forgets it. A sandbox that does not exist is success.
func (s *Service) Remove(ctx context.Context, id string) error {
	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	r, err := s.Get(id)
	if err != nil {
		return nil
	}
	if err := s.destroy(ctx, r); err != nil {
		return fmt.Errorf("remove pod sandbox %s: %w", id, err)
	}

	return nil
}

// destroy releases everything. The record goes last, and only if nothing is left to be tried again.
func (s *Service) destroy(ctx context.Context, r Record) error {
	if err := s.teardown(ctx, &r); err != nil {
		return err
	}
	if err := errors.Join(os.RemoveAll(s.dir(r.ID)), os.RemoveAll(s.filesOf(r.ID))); err != nil {
		return err
	}
	return s.records.Delete(r.ID)
}
