package btrfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
)

// Copy is a snapshot that is to be made.
type Copy struct {
	Name   string   // of the new subvolume
	Source *os.File // the root directory of the subvolume that it is of
}

// ErrNoMoment says that several snapshots were not of one moment, however often they were made.
var ErrNoMoment = errors.New("the snapshots were never of one moment")

// lead is the subvolume whose snapshots begin the attempts, and where they are made.
const lead = "lead"

// SnapshotsOfOneMoment makes a read-only snapshot in the open directory parent of each of several subvolumes,
// with what all of them have at one moment; they are on disk when this returns. It fails with ErrNoMoment
// when ctx ends before. It works in scratch, a directory of the same file system that it makes and removes;
// what is left there by a killed process is removed by the next call, or by ClearScratch. Calls with one
// scratch must not overlap.
//
// The kernel makes all snapshots of one transaction at the end of that, when nobody can change anything, and
// says in which transaction one was made. So they are made side by side until all are of the same. That
// calls for a transaction that cannot end before all have joined it: while the one before it is being
// written, which is begun by a snapshot of an empty subvolume, shortly before the others. In one directory
// only one at a time is made: each has a directory of its own, from which it is moved to parent.
func SnapshotsOfOneMoment(ctx context.Context, parent *os.File, scratch string, copies []Copy) error {
	m, err := newMoment(scratch, copies)
	if err != nil {
		return err
	}
	defer func() {
		m.close()
		_ = ClearScratch(scratch)
	}()

	for try := 0; ; try++ {
		same, err := m.attempt(ctx, try)
		if err != nil {
			return err
		}
		if same {
			return m.publish(parent)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w in %d attempts: too much is being written", ErrNoMoment, try+1)
		}
	}
}

// moment is an attempt to make snapshots of one moment.
type moment struct {
	scratch *os.File
	empty   *os.File   // the subvolume that is snapshotted first
	places  []*os.File // where each snapshot is made; the last one is that of the first
	copies  []Copy
}

func newMoment(scratch string, copies []Copy) (*moment, error) {
	if err := ClearScratch(scratch); err != nil {
		return nil, err
	}
	if err := os.Mkdir(scratch, 0o700); err != nil {
		return nil, err
	}

	m := &moment{copies: copies}
	if err := m.open(scratch); err != nil {
		m.close()
		return nil, err
	}

	return m, nil
}

func (m *moment) open(scratch string) (err error) {
	if m.scratch, err = os.Open(scratch); err != nil {
		return err
	}
	if err := Create(m.scratch, lead); err != nil {
		return err
	}
	if m.empty, err = Open(m.scratch, lead); err != nil {
		return err
	}

	for i := range len(m.copies) + 1 {
		path := filepath.Join(scratch, strconv.Itoa(i))
		if err := os.Mkdir(path, 0o700); err != nil {
			return err
		}
		place, err := os.Open(path)
		if err != nil {
			return err
		}
		m.places = append(m.places, place)
	}

	return nil
}

func (m *moment) close() {
	for _, f := range append(m.places, m.empty, m.scratch) {
		if f != nil {
			f.Close()
		}
	}
}

// attempt makes all snapshots, in place of those of the attempt before, and reports whether they are of one
// moment.
func (m *moment) attempt(ctx context.Context, try int) (same bool, err error) {
	first := m.places[len(m.copies)]
	if err := Destroy(first, lead); err != nil {
		return false, err
	}
	for i, c := range m.copies {
		if err := Destroy(m.places[i], c.Name); err != nil {
			return false, err
		}
	}

	var group errgroup.Group
	group.Go(func() error { return Snapshot(first, lead, m.empty, false) })

	// Until its transaction has begun to end. How long that takes depends on the machine.
	_ = retry.Sleep(ctx, 500*time.Microsecond<<(try%4))
	for i, c := range m.copies {
		group.Go(func() error { return Snapshot(m.places[i], c.Name, c.Source, false) })
	}

	if err := group.Wait(); err != nil {
		return false, err
	}

	return m.isOne()
}

func (m *moment) isOne() (bool, error) {
	var of uint64
	for i, c := range m.copies {
		root, err := Open(m.places[i], c.Name)
		if err != nil {
			return false, err
		}
		sub, err := Inspect(root)
		root.Close()
		if err != nil {
			return false, err
		}
		if i > 0 && sub.Created != of {
			return false, nil
		}
		of = sub.Created
	}
	return true, nil
}

// publish moves the snapshots to where they belong. A subvolume that is read-only cannot be moved to another
// directory.
func (m *moment) publish(parent *os.File) error {
	for i, c := range m.copies {
		from, to := int(m.places[i].Fd()), int(parent.Fd())
		if err := unix.Renameat2(from, c.Name, to, c.Name, unix.RENAME_NOREPLACE); err != nil {
			return fmt.Errorf("move subvolume %s to %s: %w", c.Name, parent.Name(), err)
		}
		if err := makeReadOnly(parent, c.Name); err != nil {
			return err
		}
	}
	return Commit(parent)
}

func makeReadOnly(parent *os.File, name string) error {
	root, err := Open(parent, name)
	if err != nil {
		return err
	}
	defer root.Close()

	flags := uint64(snapReadOnly)
	if err := ioctl(root, iocSubvolFlags, &flags); err != nil {
		return fmt.Errorf("make subvolume %s read-only: %w", root.Name(), err)
	}
	return nil
}

// ClearScratch removes the directory that SnapshotsOfOneMoment works in, with what is in it. One that is not
// there is success.
func ClearScratch(scratch string) error {
	places, err := os.ReadDir(scratch)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	for _, place := range places {
		if place.Name() == lead {
			continue
		}
		if err := destroyAll(filepath.Join(scratch, place.Name())); err != nil {
			return err
		}
	}

	return destroyAll(scratch)
}

// destroyAll removes a directory with the subvolumes in it.
func destroyAll(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()

	names, err := dir.Readdirnames(0)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := Destroy(dir, name); err != nil {
			return err
		}
	}

	return os.Remove(path)
}
