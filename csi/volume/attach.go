package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/trivet-node/trivet/csi/mount"
)

// Use is how a pod wants a volume.
type Use struct {
	Access       Access
	FSType       string
	Options      []string // mount options
	ReadOnly     bool
	SingleWriter bool // one target at a time
}

// rootDir is the open root directory of a volume with a file system, nil for raw block.
type rootDir = *os.File

// Stage makes a volume ready for use on this node: its file system is mounted on path, or its device
// attached. Pods get it by Publish.
func (s *Service) Stage(ctx context.Context, id, path string, u Use) error {
	r, unlock, err := s.use(ctx, id, u)
	if err != nil {
		return err
	}
	defer unlock()

	old, staged := s.staging(id)
	if staged && old.Path != path {
		return fmt.Errorf("%w: %s is staged on %s already", ErrInUse, id, old.Path)
	}

	place, err := s.cfg.Targets.Place(path, true)
	if err != nil {
		return err
	}
	defer place.Close()

	state, err := place.State()
	if err != nil || staged && state.Mounted && r.Spec.Access == Filesystem {
		return err
	}

	if !staged {
		if err := s.setStaging(id, staging{Path: path}); err != nil {
			return err
		}
	}

	if err := s.attach(r.Spec, place, state, u); err != nil {
		err = fmt.Errorf("stage volume %s: %w", id, err)

		// pods may be using it
		if staged {
			return err
		}

		return errors.Join(err, s.detach(r.Spec, place), s.dropStaging(id))
	}

	return nil
}

func (s *Service) attach(spec Spec, place *mount.Place, state mount.State, u Use) error {
	backend := s.cfg.Backends[spec.Backend]
	if spec.Access == Block {
		dev, err := backend.Device(spec)
		if err != nil {
			return err
		}

		return dev.Close()
	}

	// of unknown origin: the record is gone, or was never written
	if state.Mounted {
		if err := place.Clear(); err != nil {
			return err
		}
	}

	tree, err := backend.Mount(spec, mount.ParseOptions(u.Options))
	if err != nil {
		return err
	}
	defer tree.Close()

	if err := place.MakeDir(); err != nil {
		return err
	}

	return tree.Attach(place)
}

// detach undoes attach as far as it got.
func (s *Service) detach(spec Spec, place *mount.Place) error {
	if spec.Access == Block {
		return s.cfg.Backends[spec.Backend].Release(spec.ID)
	}
	return place.Clear()
}

// Unstage undoes Stage. What is not staged is success.
func (s *Service) Unstage(ctx context.Context, id, path string) error {
	if err := CheckID(id); err != nil {
		return err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	// even without a record what is mounted must go
	r, _ := s.peek(id)
	staged, known := s.staging(id)
	if known && staged.Path != path {
		// it is staged, but not there
		return nil
	}

	place, err := s.cfg.Targets.Place(path, false)
	switch {
	case errors.Is(err, os.ErrNotExist):
		// nothing can be mounted there; a device may still be attached
	case err != nil:
		return err
	default:
		defer place.Close()

		if err := place.Clear(); err != nil {
			return fmt.Errorf("unstage volume %s: %w", id, err)
		}
	}

	if backend := s.cfg.Backends[r.Spec.Backend]; r.Spec.Access == Block && backend != nil {
		if err := backend.Release(id); err != nil {
			return fmt.Errorf("unstage volume %s: %w", id, err)
		}
	}

	if !known {
		return nil
	}

	return s.dropStaging(id)
}

// Publish puts a staged volume on target, for one pod.
func (s *Service) Publish(ctx context.Context, id, target string, u Use) error {
	r, unlock, err := s.use(ctx, id, u)
	if err != nil {
		return err
	}
	defer unlock()

	staged, ok := s.staging(id)
	if !ok {
		return fmt.Errorf("%w: %s", ErrNotStaged, id)
	}

	others := slices.ContainsFunc(staged.Targets, func(t string) bool { return t != target })
	if others && (u.SingleWriter || staged.SingleWriter) {
		return fmt.Errorf("%w: %s has a single writer and is published on %s",
			ErrInUse, id, staged.Targets[0])
	}

	place, err := s.cfg.Targets.Place(target, true)
	if err != nil {
		return err
	}
	defer place.Close()

	before := staged
	if !slices.Contains(staged.Targets, target) {
		staged.Targets = append(slices.Clone(staged.Targets), target)
		staged.SingleWriter = u.SingleWriter
		if err := s.setStaging(id, staged); err != nil {
			return err
		}
	}

	if err := s.show(r.Spec, staged.Path, place, u); err != nil {
		err = fmt.Errorf("publish volume %s: %w", id, err)
		if state, unknown := place.State(); unknown != nil || state.Mounted {
			return err
		}

		// a target without a mount would keep others from a single writer's volume
		return errors.Join(err, s.setStaging(id, before))
	}

	return nil
}

// show puts what is staged on place.
func (s *Service) show(spec Spec, stagingPath string, place *mount.Place, u Use) error {
	source, err := s.source(spec, stagingPath)
	if err != nil {
		return err
	}
	defer source.Close()
	return publish(source, place, spec.Access, u)
}

// source opens what is shown to pods: the root directory where it is staged, or the device.
func (s *Service) source(spec Spec, stagingPath string) (*os.File, error) {
	if spec.Access == Block {
		return s.cfg.Backends[spec.Backend].Device(spec)
	}

	place, err := s.cfg.Targets.Place(stagingPath, false)
	if err != nil {
		return nil, err
	}
	defer place.Close()

	state, err := place.State()
	if err != nil {
		return nil, err
	}
	if !state.Mounted {
		return nil, fmt.Errorf("%w: nothing is mounted on %s", ErrNotStaged, stagingPath)
	}

	return place.Open()
}

func publish(source *os.File, place *mount.Place, access Access, u Use) error {
	options := mount.ParseOptions(u.Options)
	options.ReadOnly = options.ReadOnly || u.ReadOnly
	state, err := place.State()
	if err != nil {
		return err
	}

	if state.Mounted {
		same, err := shows(state, source, access)
		if err != nil || same && state.ReadOnly == options.ReadOnly {
			return err
		}
		if same {
			return fmt.Errorf("%w: it is on %s with read-only %t", ErrConflict, place, state.ReadOnly)
		}

		return fmt.Errorf("%w: something else is mounted on %s", ErrConflict, place)
	}

	makeTarget := place.MakeDir
	if access == Block {
		makeTarget = place.MakeFile
	}
	if err := makeTarget(); err != nil {
		return err
	}

	tree, err := mount.Clone(source, options)
	if err != nil {
		return err
	}
	defer tree.Close()

	return tree.Attach(place)
}

// Unpublish undoes Publish: unmounts target and removes the directory or file that it was mounted on. What is
// gone is success.
func (s *Service) Unpublish(ctx context.Context, id, target string) error {
	if err := CheckID(id); err != nil {
		return err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return err
	}
	defer unlock()

	place, err := s.cfg.Targets.Place(target, false)
	switch {
	case errors.Is(err, os.ErrNotExist):
	case err != nil:
		return err
	default:
		defer place.Close()

		if err := place.Remove(); err != nil {
			return fmt.Errorf("unpublish volume %s: %w", id, err)
		}
	}

	staged, ok := s.staging(id)
	if !ok || !slices.Contains(staged.Targets, target) {
		return nil
	}

	staged.Targets = slices.DeleteFunc(
		slices.Clone(staged.Targets),
		func(t string) bool { return t == target },
	)

	return s.setStaging(id, staged)
}

// use locks a volume and checks that it can be used so.
func (s *Service) use(ctx context.Context, id string, u Use) (record, func(), error) {
	if err := CheckID(id); err != nil {
		return record{}, nil, err
	}

	unlock, err := s.locks.Lock(ctx, id)
	if err != nil {
		return record{}, nil, err
	}

	r, err := s.find(id)
	switch {
	case err != nil:
	case r.damage != nil:
		err = fmt.Errorf("volume %s: %w", id, r.damage)
	case u.Access != r.Spec.Access:
		err = fmt.Errorf("%w: volume %s is for %s access, not %s", ErrInvalid, id, r.Spec.Access, u.Access)
	case u.FSType != "" && u.FSType != r.Spec.FSType:
		err = fmt.Errorf("%w: volume %s has file system %s, not %s", ErrInvalid, id, r.Spec.FSType, u.FSType)
	}

	if err != nil {
		unlock()
		return record{}, nil, err
	}

	return r, unlock, nil
}
