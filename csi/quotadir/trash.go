package quotadir

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/removal"
)

// trash deletes the files of destroyed volumes in the background. What is in its directory when the process
// ends is deleted by the next one.
type trash struct {
	dir     string
	numbers *numbers
	filled  chan struct{} // has a value when something was put there

	// leaving are numbers whose directories are gone, and which the kernel may not have let go yet.
	leaving map[uint32]bool
}

func newTrash(dir string, n *numbers) *trash {
	return &trash{
		dir:     dir,
		numbers: n,
		filled:  make(chan struct{}, 1),
		leaving: map[uint32]bool{},
	}
}

func (t *trash) wake() {
	select {
	case t.filled <- struct{}{}:
	default:
	}
}

// patience is how long what could not be deleted is left alone. xfs frees what was deleted a moment later,
// and a file that somebody has open is there until it is closed.
const patience = 5 * time.Second

func (t *trash) run(ctx context.Context) {
	for ctx.Err() == nil {
		var again <-chan time.Time
		if left, err := t.empty(ctx); left > 0 || err != nil {
			again = time.After(patience)
		}

		select {
		case <-ctx.Done():
		case <-t.filled:
		case <-again:
		}
	}
}

// empty deletes what is there, and returns of how many volumes something is left.
func (t *trash) empty(ctx context.Context) (left int, err error) {
	names, err := namesIn(t.dir)
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		_, project, ours := Parse(name)
		if !ours {
			continue
		}
		if err := t.remove(ctx, filepath.Join(t.dir, name), project); err != nil {
			left++
			continue
		}
		t.leaving[project] = true
	}
	return left + t.release(), nil
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
	if err := removal.Inside(ctx, path); err != nil {
		return err
	}
	f, err := openDir(path)
	if err != nil {
		return err
	}
	defer f.Close()

	// A pod may have put its directory into the project of another volume.
	if err := projectquota.Put(f, project); err != nil {
		return err
	}
	used, _, err := projectquota.Look(f, project)
	if err != nil {
		return err
	}
	if used.Inodes > 1 {
		return fmt.Errorf("%d files of project %d are left elsewhere", used.Inodes-1, project)
	}
	if err := projectquota.Limit(f, project, projectquota.Limits{}); err != nil {
		return err
	}
	return os.Remove(path)
}
