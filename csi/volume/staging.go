package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/mount"
)

func (s *Service) staging(id string) (staging, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st, ok := s.stages[id]
	return st, ok
}

func (s *Service) setStaging(id string, st staging) error {
	if err := s.staged.Put(id, st); err != nil {
		return fmt.Errorf("record where volume %s is used: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stages[id] = st
	return nil
}

func (s *Service) dropStaging(id string) error {
	if err := s.staged.Delete(id); err != nil {
		return fmt.Errorf("forget where volume %s was used: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.stages, id)
	return nil
}

// restage compares the staging records with what the kernel has mounted. After a reboot nothing is; after
// kill -9 everything is.
func (s *Service) restage(report *Report) error {
	records, torn, err := s.staged.List()
	if err != nil {
		return fmt.Errorf("read staging records: %w", err)
	}

	report.Torn = append(report.Torn, torn...)
	for id, st := range records {
		r, ok := s.peek(id)
		if ok && s.stillStaged(r.Spec, st) {
			st.Targets = slices.DeleteFunc(st.Targets, func(target string) bool { return !s.mounted(target) })
			s.stages[id] = st
			continue
		}

		report.Unstaged = append(report.Unstaged, id)
		if err := s.staged.Delete(id); err != nil {
			return err
		}
	}

	// A device without a staging record is left alone: the record is written before and removed after it, so
	// the record was lost, and a pod may be using the device. The next Stage finds it again, and Delete
	// detaches it.
	return nil
}

func (s *Service) stillStaged(spec Spec, st staging) bool {
	if spec.Access == Block {
		backend := s.cfg.Backends[spec.Backend]
		if backend == nil {
			return false
		}
		attached, err := backend.Attached(spec.ID)
		return attached && err == nil
	}
	return s.mounted(st.Path)
}

func (s *Service) mounted(path string) bool {
	place, err := s.cfg.Targets.Place(path, false)
	if err != nil {
		return false
	}
	defer place.Close()
	state, err := place.State()
	return err == nil && state.Mounted
}

// shows reports whether the mount with the given state shows the same directory or device as source.
func shows(state mount.State, source *os.File, access Access) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(source.Fd()), &st); err != nil {
		return false, &os.PathError{Op: "stat", Path: source.Name(), Err: err}
	}
	if access == Block {
		return state.Special == st.Rdev, nil
	}
	return state.Device == st.Dev && state.Inode == st.Ino, nil
}

// withRoot runs f with the open root directory of a volume that is mounted on path, or with nil for raw
// block.
func (s *Service) withRoot(spec Spec, path string, f func(rootDir) error) error {
	if spec.Access == Block {
		return f(nil)
	}

	place, err := s.cfg.Targets.Place(path, false)
	if err != nil {
		return err
	}
	defer place.Close()

	state, err := place.State()
	if err != nil {
		return err
	}
	if !state.Mounted {
		return fmt.Errorf("%w: nothing is mounted on %s", ErrNotFound, path)
	}

	root, err := place.Open()
	if err != nil {
		return err
	}
	defer root.Close()

	return f(root)
}

// Stats tells how much of the volume, seen at path, is used. kubelet asks about a raw block volume at a path
// of its own, to which it has bound the device from where that is published.
func (s *Service) Stats(ctx context.Context, id, path string) (Volume, Usage, error) {
	r, err := s.find(id)
	if err != nil {
		return Volume{}, Usage{}, err
	}
	if r.damage != nil {
		return Volume{}, Usage{}, fmt.Errorf("volume %s: %w", id, r.damage)
	}

	staged, ok := s.staging(id)
	if ok && path != staged.Path && !slices.Contains(staged.Targets, path) {
		ok = r.Spec.Access == Block && s.showsDevice(r.Spec, path)
	}
	if !ok {
		return Volume{}, Usage{}, fmt.Errorf("%w: %s is not on %s", ErrNotFound, id, path)
	}

	var usage Usage
	err = s.withRoot(r.Spec, path, func(root rootDir) (err error) {
		usage, err = s.cfg.Backends[r.Spec.Backend].Usage(r.Spec, root)
		return err
	})
	if errors.Is(err, os.ErrNotExist) {
		err = fmt.Errorf("%w: %s is not on %s", ErrNotFound, id, path)
	}

	return s.view(r), usage, err
}

// showsDevice reports whether the device of a staged raw block volume is seen at path.
func (s *Service) showsDevice(spec Spec, path string) bool {
	place, err := s.cfg.Targets.Place(path, false)
	if err != nil {
		return false
	}
	defer place.Close()

	state, err := place.State()
	if err != nil || !state.Mounted {
		return false
	}

	dev, err := s.cfg.Backends[spec.Backend].Device(spec)
	if err != nil {
		return false
	}
	defer dev.Close()

	same, err := shows(state, dev, Block)
	return same && err == nil
}
