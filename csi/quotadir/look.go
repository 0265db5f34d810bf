package quotadir

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/internal/treewalk"
)

const (
	// deepest is how many directories down files are looked at, as far as a path can lead. It bounds the
	// memory of a look.
	deepest = 2048

	// A file that its owner has a lease of cannot be opened before he gives that up, or the kernel takes it
	// from him after lease-break-time, 45 seconds. So many files are tried again meanwhile.
	mostLeased = 8
	leaseTime  = time.Minute
)

// look is one at all files of a volume.
type look struct {
	began   time.Time
	root    *os.File
	project uint32
	walk    treewalk.Walk
	leased  []leased

	// What was found.
	putBack int   // files that were outside
	left    int   // files that may be outside still
	why     error // of one of them
	deep    bool  // something is deeper than is looked at
	cut     bool  // directories were moved or deleted meanwhile, so that not all was looked at
}

// leased is a file that could not be opened yet.
type leased struct {
	handle int
	until  time.Time
}

// goOn looks at some more files, and reports whether these were the last. What cannot be put back stays until
// the next look.
func (l *look) goOn(now time.Time) (done bool) {
	l.tryLeased(now)
	for range turn {
		before := l.walk.Depth()
		dir, name, err := l.walk.Next()
		switch {
		case err != nil && (errors.Is(err, treewalk.ErrMoved) || l.walk.Depth() < before-1):
			// The way back was moved, or deleted.
			l.cut = true
		case err != nil:
			l.leave(err)
		case dir < 0:
			return len(l.leased) == 0
		default:
			l.leave(l.visit(dir, name, now))
		}
		if time.Since(now) > turnTime {
			break
		}
	}

	l.walk.Pause()
	return false
}

// leave counts a file that was not looked at, unless it is gone.
func (l *look) leave(err error) {
	if err == nil || errors.Is(err, unix.ENOENT) {
		return
	}
	l.left++
	l.why = err
}

// visit looks at an entry of the directory of a walk, and goes down if it is a directory. Only files and
// directories have a project that can be looked at; of the rest each is some hundred bytes.
func (l *look) visit(dir int, name string, now time.Time) error {
	// A pod may make it a FIFO or a device at any moment: what is opened to be read is what was looked at.
	handle, err := beneath.Open(dir, name, unix.O_PATH|unix.O_NOFOLLOW, beneath.NoLinks|beneath.OneFileSystem)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	if err = unix.Fstat(handle, &st); err == nil {
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			err = errors.Join(l.put(handle), l.enter(handle, name, &st))
		case unix.S_IFREG:
			err = l.put(handle)
		}
	}
	if errors.Is(err, unix.EAGAIN) && len(l.leased) < mostLeased {
		l.leased = append(l.leased, leased{handle: handle, until: now.Add(leaseTime)})
		return nil
	}
	return errors.Join(err, unix.Close(handle))
}

func (l *look) enter(handle int, name string, st *unix.Stat_t) error {
	if l.walk.Depth() >= deepest {
		l.deep = true
		return nil
	}
	return l.walk.Enter(handle, name, st)
}

// put puts a file back if it is outside.
func (l *look) put(handle int) error {
	f, err := os.OpenFile(beneath.Path(handle), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	is, err := projectquota.Project(f)
	if err != nil {
		return err
	}
	if err := put(f, l.project); err != nil {
		return err
	}
	if is.Project != l.project {
		l.putBack++
	}
	return nil
}

// put is projectquota.Put also for what was made immutable: it is not, afterwards.
func put(f *os.File, project uint32) error {
	err := projectquota.Put(f, project)
	if errors.Is(err, unix.EPERM) && removal.Loosen(f) == nil {
		err = projectquota.Put(f, project)
	}
	return err
}

// tryLeased tries files again that could not be opened.
func (l *look) tryLeased(now time.Time) {
	before := l.leased
	l.leased = nil
	for _, one := range before {
		err := l.put(one.handle)
		if errors.Is(err, unix.EAGAIN) && now.Before(one.until) {
			l.leased = append(l.leased, one)
			continue
		}
		l.leave(errors.Join(err, unix.Close(one.handle)))
	}
}

// found is what a person should know of a look, nil if nothing. A move now and then is nothing.
func (l *look) found(moves bool) error {
	var texts []string
	say := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if l.putBack > 0 {
		say("%d files were outside of its project, and were put back", l.putBack)
	}
	if l.left > 0 {
		say("%d files could not be looked at, or put back: %v", l.left, l.why)
	}
	if l.deep {
		say("files deeper than %d directories are not looked at", deepest)
	}
	if moves {
		say("directories are moved or deleted all the time, and not all were looked at")
	}
	if len(texts) == 0 {
		return nil
	}
	return errors.New(strings.Join(texts, "; "))
}

func (l *look) close() {
	for _, one := range l.leased {
		_ = unix.Close(one.handle)
	}
	l.walk.Close()
	_ = l.root.Close()
}
