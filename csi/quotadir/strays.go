package quotadir

import (
	"context"
	"maps"
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
// use are looked at periodically, and put back. Volumes take turns: one that has millions of files, or is
// being changed all the time, does not keep the driver from looking at others.
type strays struct {
	dirs *Dirs

	// mu guards what follows.
	mu   sync.Mutex
	used map[string]bool // IDs of volumes that were in use since a look at them began

	// What follows is run's.
	looks map[string]*look
	ended map[string]time.Time // when the last look at a volume ended
}

func newStrays(d *Dirs) *strays {
	return &strays{
		dirs:  d,
		used:  map[string]bool{},
		looks: map[string]*look{},
		ended: map[string]time.Time{},
	}
}

const (
	// lookPeriod is for how long a file can be outside, beside the time that a look takes.
	lookPeriod = time.Minute

	// A turn is a look at so many files, and is followed by a pause that is some times as long: all looks
	// together take a part of a processor.
	turn     = 512
	rest     = 4
	longRest = time.Second

	// mostLooks bounds the descriptors that are held, and longestLook how long who changes his volume all
	// the time can hold some of them.
	mostLooks   = 64
	longestLook = time.Hour

	// idle is the pause while there is nothing to look at.
	idle = time.Second
)

// mayBeIn says that a volume is in use.
func (s *strays) mayBeIn(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used[id] = true
}

func (s *strays) run(ctx context.Context) {
	defer func() {
		for id := range s.looks {
			s.end(id)
		}
	}()

	for ctx.Err() == nil {
		s.begin(time.Now())
		if len(s.looks) == 0 {
			_ = retry.Sleep(ctx, idle)
		}

		for id, l := range s.looks {
			began := time.Now()
			if l.goOn(turn) || began.Sub(l.began) > longestLook {
				s.end(id)
			}
			_ = retry.Sleep(ctx, min(rest*time.Since(began), longRest))
		}
	}
}

// begin begins to look at volumes in use where that is due.
func (s *strays) begin(now time.Time) {
	maps.DeleteFunc(s.ended, func(_ string, at time.Time) bool { return now.Sub(at) > lookPeriod })

	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.used {
		_, early := s.ended[id]
		if s.looks[id] != nil || early || len(s.looks) >= mostLooks {
			continue
		}

		// What cannot be looked at now is looked at when it is used the next time.
		delete(s.used, id)
		if l, err := s.dirs.lookAt(id, now); err == nil {
			s.looks[id] = l
		}
	}
}

func (s *strays) end(id string) {
	s.looks[id].close()
	delete(s.looks, id)
	s.ended[id] = time.Now()
}

// look is one at all files of a volume.
type look struct {
	began   time.Time
	root    *os.File
	project uint32
	walk    treewalk.Walk
}

func (d *Dirs) lookAt(id string, now time.Time) (*look, error) {
	root, project, err := d.open(id)
	if err != nil {
		return nil, err
	}

	l := &look{began: now, root: root, project: project}
	var st unix.Stat_t
	err = unix.Fstat(int(root.Fd()), &st)
	if err == nil {
		err = l.walk.Enter(int(root.Fd()), id, &st)
	}
	if err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

// goOn looks at some more files, and reports whether these were the last. What cannot be put back stays until
// the next look.
func (l *look) goOn(most int) (done bool) {
	for range most {
		dir, name, err := l.walk.Next()
		switch {
		case err != nil:
		case dir < 0:
			return true
		default:
			_ = putBack(&l.walk, dir, name, l.project)
		}
	}

	l.walk.Pause()
	return false
}

func (l *look) close() {
	l.walk.Close()
	_ = l.root.Close()
}

// putBack looks at an entry of the directory of a walk, and goes down if it is a directory. Only files and
// directories have a project that can be looked at; of the rest each is some hundred bytes.
func putBack(w *treewalk.Walk, dir int, name string, project uint32) error {
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
