package quotadir

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// strays are files that were taken out of the project of their volume. Their owner may do that, unless he is
// in a user namespace, and they are charged to nobody then, or to another volume. So all files of volumes in
// use are looked at periodically, and put back.
type strays struct {
	dirs *Dirs

	// mu guards what follows.
	mu   sync.Mutex
	used map[string]bool // IDs of volumes that were in use since the last look
}

func newStrays(d *Dirs) *strays { return &strays{dirs: d, used: map[string]bool{}} }

const (
	// lookPeriod is for how long a file can be outside, beside the time that a look takes.
	lookPeriod = time.Minute

	// A look at so many files is followed by a pause that is some times as long: it takes a part of a
	// processor.
	atOnce   = 256
	rest     = 4
	longRest = time.Second
)

// mayBeIn says that a volume is in use.
func (s *strays) mayBeIn(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[id] = true
}

func (s *strays) run(ctx context.Context) {
	for retry.Sleep(ctx, lookPeriod) == nil {
		s.mu.Lock()
		used := s.used
		s.used = map[string]bool{}
		s.mu.Unlock()

		for id := range used {
			// What cannot be put back now is found again.
			_ = s.putBack(ctx, id)
		}
	}
}

// putBack puts the files of a volume into its project. It returns the last error.
func (s *strays) putBack(ctx context.Context, id string) error {
	root, project, err := s.dirs.open(id)
	if err != nil {
		return err
	}
	defer root.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(root.Fd()), &st); err != nil {
		return err
	}

	var w treewalk.Walk
	defer w.Close()
	if err := w.Enter(int(root.Fd()), id, &st); err != nil {
		return err
	}

	var last error
	began := time.Now()
	for n := 1; ctx.Err() == nil; n++ {
		dir, name, err := w.Next()
		switch {
		case err != nil:
			last = err
			continue
		case dir < 0:
			return last
		}
		if err := putBackOne(&w, dir, name, project); err != nil {
			last = err
		}

		if n%atOnce == 0 {
			_ = retry.Sleep(ctx, min(rest*time.Since(began), longRest))
			began = time.Now()
		}
	}
	return context.Cause(ctx)
}

// putBackOne looks at an entry of the directory of a walk, and goes down if it is a directory. Only files and
// directories have a project that can be looked at; of the rest each is some hundred bytes.
func putBackOne(w *treewalk.Walk, dir int, name string, project uint32) error {
	// A pod may make it a FIFO or a device at any moment: what is opened to be read is what was looked at.
	handle, err := beneath.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, beneath.NoLinks|beneath.OneFileSystem)
	if err != nil {
		return err
	}
	defer unix.Close(handle)
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	if kind != unix.S_IFREG && kind != unix.S_IFDIR {
		return nil
	}

	f, err := os.OpenFile(beneath.Path(handle), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	err = projectquota.Put(f, project)
	if closed := f.Close(); err == nil {
		err = closed
	}
	if kind == unix.S_IFDIR {
		if down := w.Enter(handle, name, &st); down != nil {
			return down
		}
	}
	return err
}
