package quotadir

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/removal"
)

// trash deletes the files of destroyed volumes in the background. What is in its directory when the process
// ends is deleted by the next one.
type trash struct {
	dir     string
	numbers *numbers
	filled  chan struct{} // has a value when something was put there

	reports *reports

	// What follows is run's. leaving are numbers whose directories are gone, and which the kernel may not
	// have let go yet; failing is since when a directory could not be deleted.
	leaving map[uint32]bool
	failing map[string]time.Time

	// silent says that it was reported that dir cannot be read.
	silent bool
}

func newTrash(dir string, n *numbers, r *reports) *trash {
	return &trash{
		dir:     dir,
		numbers: n,
		filled:  make(chan struct{}, 1),
		reports: r,
		leaving: map[uint32]bool{},
		failing: map[string]time.Time{},
	}
}

// Destroy moves a volume to where its files are deleted from, see volume.Backend.
func (d *Dirs) Destroy(id string) error {
	if lack := d.lack(); lack != nil {
		// Their disk may have the volume.
		return fmt.Errorf("volume %s: %w", id, lack)
	}
	if d.late {
		d.findAgain(d.numbers, id)
	}
	project, known := d.numbers.of(id)
	if !known {
		return nil
	}
	path := d.path(id, project)
	move := func() error { return os.Rename(path, filepath.Join(d.deleted, nameOf(id, project))) }

	err := move()
	if errors.Is(err, unix.EPERM) {
		// A pod may have made it immutable.
		if err = loosen(path); err == nil {
			err = move()
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// It was never made. If somebody has removed it, its number has limits still, and is not taken again.
		d.numbers.free(project)
	case err != nil:
		return err
	}
	d.numbers.leave(id)
	d.trash.wake()
	return nil
}

func loosen(path string) error {
	f, err := openDir(path)
	if err != nil {
		return err
	}
	return errors.Join(removal.Loosen(f), f.Close())
}

// Commit makes deletions survive a power loss, see volume.Backend.
func (d *Dirs) Commit() error {
	if !d.isHeld() {
		return nil
	}
	return errors.Join(durable.SyncDir(d.deleted), durable.SyncDir(d.volumes))
}

func (t *trash) wake() {
	select {
	case t.filled <- struct{}{}:
	default:
	}
}

const (
	// patience is how long what could not be deleted is left alone. xfs frees what was deleted a moment
	// later, and a file that somebody has open is there until it is closed.
	patience = 5 * time.Second

	// slice is how long files of one volume are deleted before it is the next one's turn.
	slice = 2 * time.Second

	// worth is how long something fails before that is reported.
	worth = time.Minute
)

func (t *trash) run(ctx context.Context) {
	var again <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.filled:
		case <-again:
		}

		again = nil
		switch left, more, err := t.empty(ctx); {
		case more:
			t.wake()
		case left > 0 || err != nil:
			again = time.After(patience)
		}
	}
}

// empty deletes what is there, of each volume for a while. It returns of how many something is left, and
// whether of one because its time was over.
func (t *trash) empty(ctx context.Context) (left int, more bool, err error) {
	names, err := namesIn(t.dir)
	if err != nil {
		t.unreadable(err)
		return 0, false, err
	}
	t.silent = false
	for _, name := range names {
		id, project, ours := Parse(name)
		if !ours {
			continue
		}

		err := t.remove(ctx, filepath.Join(t.dir, name), project)
		switch {
		case err == nil:
			delete(t.failing, name)
			continue
		case errors.Is(err, context.DeadlineExceeded):
			more = true
		case ctx.Err() == nil:
			t.fails(id, name, err, time.Now())
		}
		left++
	}
	return left + t.release(), more && ctx.Err() == nil, nil
}

// fails reports what keeps a volume from being gone, once.
func (t *trash) fails(id, name string, err error, now time.Time) {
	since, known := t.failing[name]
	switch {
	case !known:
		t.failing[name] = now
	case !since.IsZero() && now.Sub(since) > worth:
		t.reports.tell(id, fmt.Errorf("it was deleted, and something is left of it: %w", err))
		t.failing[name] = time.Time{}
	}
}

// unreadable reports that nothing that was deleted can be found, once until it can.
func (t *trash) unreadable(err error) {
	if !t.silent {
		t.reports.tell("", fmt.Errorf("what was deleted stays on the disk until it can be read: %w", err))
	}
	t.silent = true
}

// release frees numbers that nothing has any more, and returns how many others there are. xfs counts a
// directory for a moment after it is gone.
func (t *trash) release() (left int) {
	disk, err := openDir(t.dir)
	if err != nil {
		return len(t.leaving)
	}
	defer disk.Close()

	for project := range t.leaving {
		if used, _, err := projectquota.Look(disk, project); err == nil && used.Inodes == 0 {
			t.numbers.free(project)
			delete(t.leaving, project)
		}
	}
	return len(t.leaving)
}

// remove deletes one. Its directory goes last, after the limits of its project: while it is there the number
// is taken, and a project that has limits is nobody's.
func (t *trash) remove(ctx context.Context, path string, project uint32) error {
	mine, end := context.WithTimeout(ctx, slice)
	defer end()
	if err := removal.Inside(mine, path); err != nil {
		return err
	}
	if t.numbers.isShared(project) {
		// The limits are another volume's, too.
		if err := removal.Tree(path); err != nil {
			return err
		}
		t.numbers.leaveShared(project)
		return nil
	}
	f, err := openDir(path)
	if err != nil {
		return err
	}
	defer f.Close()

	// A pod may have put its directory into the project of another volume, and have made it immutable.
	if err := errors.Join(removal.Loosen(f), put(f, project)); err != nil {
		return err
	}
	used, _, err := projectquota.Look(f, project)
	if err != nil {
		return err
	}
	if used.Inodes > 1 {
		return fmt.Errorf("%d files of project %d are left elsewhere on the disk, or open",
			used.Inodes-1, project)
	}
	if err := projectquota.Limit(f, project, projectquota.Limits{}); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	t.leaving[project] = true
	return nil
}
