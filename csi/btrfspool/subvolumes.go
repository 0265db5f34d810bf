package btrfspool

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/datadir"
	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/keylock"
)

// subvolumes are the volumes of an open pool.
type subvolumes struct {
	dir   *os.File // that they are in
	info  btrfs.Info
	quota btrfs.Quota
	meter *btrfs.Meter // nil on a disk that others mount

	// committed is the last transaction that was on disk before the pool was mounted, see baseline. On a disk
	// that others mount there is none, and it is the largest number.
	committed uint64

	// moments is held while snapshots of one moment are made.
	moments keylock.Locks[string]

	// surveyed is how all volumes were before they are recovered, while they are.
	surveyed atomic.Pointer[map[string]btrfs.State]

	// mu guards what follows.
	mu     sync.Mutex
	held   int64 // bytes that deleted volumes hold, as counted at heldAt
	heldAt time.Time
}

// openSubvolumes enables quotas and opens the directory of volumes of a mounted pool.
func openSubvolumes(root string) (*subvolumes, error) {
	f, err := os.Open(root)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	s := &subvolumes{committed: math.MaxUint64}
	if s.info, err = btrfs.Stat(f); err != nil {
		return nil, err
	}
	if s.quota, err = btrfs.EnableQuota(f); err != nil {
		return nil, err
	}

	path := filepath.Join(root, "volumes")
	made := os.Mkdir(path, 0o700)
	if made != nil && !errors.Is(made, os.ErrExist) {
		return nil, made
	}
	if err := errors.Join(datadir.Narrow(root), datadir.Narrow(path)); err != nil {
		return nil, err
	}
	if s.dir, err = os.Open(path); err != nil {
		return nil, err
	}

	// What a killed process left. If it cannot be removed now, who needs the place removes it.
	_ = btrfs.ClearScratch(s.scratch())

	if made == nil {
		if err := btrfs.Sync(s.dir); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}

	return s, nil
}

// Close closes the directory. The pool stays mounted.
func (s *subvolumes) Close() error {
	var err error
	if s.meter != nil {
		err = s.meter.Close()
	}
	return errors.Join(err, s.dir.Close())
}

// limitOf is what the quota group of a volume of that size may hold. The group is also charged for the
// volume's own metadata; the addition keeps that from coming out of the bytes that were asked for, and stays
// below one percent.
func limitOf(size int64) int64 { return size + size/128 + 32<<10 }

// create makes an empty volume, in place of one that may be there.
func (s *subvolumes) create(spec volume.Spec) (btrfs.Subvolume, error) {
	if err := btrfs.Destroy(s.dir, spec.ID); err != nil {
		return btrfs.Subvolume{}, err
	}
	if err := btrfs.Create(s.dir, spec.ID); err != nil {
		return btrfs.Subvolume{}, err
	}

	root, sub, err := s.open(spec.ID)
	if err != nil {
		return btrfs.Subvolume{}, err
	}
	defer root.Close()

	if err := btrfs.Limit(s.dir, sub, limitOf(spec.Size)); err != nil {
		return btrfs.Subvolume{}, err
	}
	if err := root.Chmod(0o755); err != nil {
		return btrfs.Subvolume{}, err
	}

	if spec.NoCOW {
		if err := btrfs.OverwriteInPlace(root); err != nil {
			return btrfs.Subvolume{}, err
		}
	}

	// On a disk that others mount it is not known after a power loss whether the volume was ever there.
	if s.committed == math.MaxUint64 {
		err = btrfs.Commit(root)
	}

	return sub, err
}

// snapshot makes a copy of source, in place of what may be there.
func (s *subvolumes) snapshot(spec, source volume.Spec) (btrfs.Subvolume, error) {
	if err := btrfs.Destroy(s.dir, spec.ID); err != nil {
		return btrfs.Subvolume{}, err
	}

	root, err := btrfs.Open(s.dir, source.ID)
	if err != nil {
		return btrfs.Subvolume{}, err
	}
	defer root.Close()

	if err := btrfs.Snapshot(s.dir, spec.ID, root, spec.Snapshot); err != nil {
		return btrfs.Subvolume{}, err
	}

	return s.inspect(spec.ID)
}

// momentTimeout is how long it may take until snapshots of several volumes are of one moment.
const momentTimeout = 20 * time.Second

// scratch is where snapshots of one moment are made.
func (s *subvolumes) scratch() string { return filepath.Join(filepath.Dir(s.dir.Name()), "moment") }

// snapshots makes a snapshot of each source with what all of them have at one moment, in place of what may be
// there.
func (s *subvolumes) snapshots(ctx context.Context, specs, sources []volume.Spec) error {
	unlock, err := s.moments.Lock(ctx, "")
	if err != nil {
		return err
	}
	defer unlock()

	var copies []btrfs.Copy
	for i, spec := range specs {
		if err := btrfs.Destroy(s.dir, spec.ID); err != nil {
			return err
		}
		root, err := btrfs.Open(s.dir, sources[i].ID)
		if err != nil {
			return err
		}
		defer root.Close()
		copies = append(copies, btrfs.Copy{Name: spec.ID, Source: root})
	}

	ctx, cancel := context.WithTimeout(ctx, momentTimeout)
	defer cancel()
	err = btrfs.SnapshotsOfOneMoment(ctx, s.dir, s.scratch(), copies)
	if errors.Is(err, btrfs.ErrNoMoment) {
		err = fmt.Errorf("%w: %w", volume.ErrUnavailable, err)
	}
	return err
}

// Keeps returns what a copy keeps that is made now, see volume.Grouper.
func (p *Pool) Keeps(source volume.Spec) (map[string]int64, error) {
	fs, leave, err := p.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	return p.shares.keepsOf(fs, source)
}

// CopyAll makes snapshots with what several volumes have at one moment, see volume.Grouper. The sources have
// room to write over what the snapshots have before those are there: it may take more than one attempt.
func (p *Pool) CopyAll(
	ctx context.Context,
	specs, sources []volume.Spec,
) ([]volume.Spec, []volume.Origin, error) {
	fs, leave, err := p.enterToWrite()
	if err != nil {
		return nil, nil, err
	}
	defer leave()

	for i, source := range sources {
		if err := p.shares.keep(fs, specs[i], source); err != nil {
			return nil, nil, err
		}
		if err := p.copyKey(specs[i], source); err != nil {
			return nil, nil, err
		}
	}
	if err := fs.snapshots(ctx, specs, sources); err != nil {
		return nil, nil, err
	}

	specs = slices.Clone(specs)
	origins := make([]volume.Origin, len(specs))
	for i, source := range sources {
		if specs[i].Keeps, err = p.shares.keepsOf(fs, source); err != nil {
			return nil, nil, err
		}
		if err := p.shares.keep(fs, specs[i], source); err != nil {
			return nil, nil, err
		}
		sub, err := fs.inspect(specs[i].ID)
		if err != nil {
			return nil, nil, err
		}
		origins[i] = volume.Origin{Token: sub.Created, Pool: fs.info.UUID}
	}

	return specs, origins, nil
}

// open returns the open root directory of a volume and what it is.
func (s *subvolumes) open(id string) (*os.File, btrfs.Subvolume, error) {
	root, err := btrfs.Open(s.dir, id)
	if err != nil {
		return nil, btrfs.Subvolume{}, err
	}
	sub, err := btrfs.Inspect(root)
	if err != nil {
		root.Close()
		return nil, btrfs.Subvolume{}, err
	}
	return root, sub, nil
}

// inspect is open without the directory.
func (s *subvolumes) inspect(id string) (btrfs.Subvolume, error) {
	root, sub, err := s.open(id)
	if err == nil {
		root.Close()
	}
	return sub, err
}

// state returns how a volume is limited: as the survey has it while there is one, else as it is now.
func (s *subvolumes) state(id string) (btrfs.State, error) {
	if survey := s.surveyed.Load(); survey != nil {
		if state, ok := (*survey)[id]; ok {
			return state, nil
		}
	}

	sub, err := s.inspect(id)
	if err != nil {
		return btrfs.State{}, err
	}
	return btrfs.Look(s.dir, s.info, sub)
}

// recoverLimit raises the limit of a volume, if it has to. One of earlier versions, which had it in its own
// quota group, is brought to the present form. It changes only what is not as it should be: each change is a
// transaction.
func (s *subvolumes) recoverLimit(was btrfs.State, limit int64) error {
	if was.Limit < limit {
		if err := btrfs.Limit(s.dir, was.Subvolume, limit); err != nil {
			return err
		}
	}
	if was.OwnLimit {
		return btrfs.LiftOwn(s.dir, was.Subvolume)
	}
	return nil
}

func (s *subvolumes) list() ([]string, error) {
	// A directory of its own: others read s.dir at the same time. What its path leads to may be another one
	// if somebody has unmounted the pool.
	fd, err := unix.Openat(int(s.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.dir.Name(), Err: err}
	}
	dir := os.NewFile(uintptr(fd), s.dir.Name())
	defer dir.Close()
	return dir.Readdirnames(-1)
}

// empty reports whether there is nothing in a volume, or an image that was never attached.
func (s *subvolumes) empty(id string) (bool, error) {
	root, err := btrfs.Open(s.dir, id)
	if err != nil {
		return false, err
	}
	defer root.Close()

	names, err := root.Readdirnames(2)
	switch {
	case errors.Is(err, io.EOF):
		return true, nil
	case err != nil || len(names) != 1 || names[0] != imageName:
		return false, err
	}

	return image.IsUnused(filepath.Join(root.Name(), imageName)), nil
}

// used returns the bytes that a volume is charged for.
func (s *subvolumes) used(id string) (int64, error) {
	sub, err := s.inspect(id)
	if err != nil {
		return 0, err
	}
	return btrfs.Usage(s.info, sub)
}

// deadOf returns how many bytes an image is charged for that are not in its file any more: an extent that a
// copy had is charged for as a whole until all of it was written over. What its metadata takes is not
// counted, as long as the limit has room for that anyway.
func (s *subvolumes) deadOf(t tenant) (int64, error) {
	if !t.image || s.quota != btrfs.SimpleQuota {
		return 0, nil
	}

	var st unix.Stat_t
	path := filepath.Join(s.dir.Name(), t.id, imageName)
	err := unix.Lstat(path, &st)
	if errors.Is(err, unix.ENOENT) {
		// It is being made.
		return 0, nil
	}
	if err != nil {
		return 0, &os.PathError{Op: "stat", Path: path, Err: err}
	}

	used, err := s.used(t.id)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	dead := used - st.Blocks*512
	if err != nil || dead <= (limitOf(t.size)-t.size)/2 {
		return 0, err
	}
	return dead, nil
}

// countAgain is how long the bytes of deleted volumes count before they are counted again.
const countAgain = 10 * time.Second

// heldNow returns how many bytes of deleted volumes live on in others, by reflink, and were not promised to
// those. Counting them takes a look at every quota group.
func (s *subvolumes) heldNow(h *shares) (int64, error) {
	if s.quota != btrfs.SimpleQuota {
		// qgroups charge them to everybody who has them
		return 0, nil
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if time.Since(s.heldAt) < countAgain {
		return s.held, nil
	}

	held, err := btrfs.Held(s.dir, s.info)
	if err != nil {
		return 0, fmt.Errorf("count what deleted volumes in %s hold: %w", s.dir.Name(), err)
	}

	kept, err := h.keptOfDead(s)
	if err != nil {
		return 0, err
	}

	s.held, s.heldAt = max(0, held-kept), time.Now()
	return s.held, nil
}
