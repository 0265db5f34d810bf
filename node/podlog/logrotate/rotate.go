package logrotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/podlog/containerlog"
	"github.com/trivet-node/trivet/node/runtime"
)

// beginRotation rotates a log in the background, unless that is being done. The caller has the lock.
func (r *Rotator) beginRotation(ctx context.Context, l *containerLog) {
	if l.rotating {
		return
	}

	l.rotating = true
	r.running.Go(func() {
		err := slot(ctx, r.rotations, func() error { return r.rotate(ctx, l.id, l.path) })
		err = unlessGone(err)

		r.mu.Lock()
		defer r.mu.Unlock()

		l.rotating = false
		l.size = 0
		l.uncompressed = true
		if ctx.Err() == nil {
			l.notRotated.report(r.cfg.Log, err, "rotation of a log", "container", l.id, "log", l.path)
			r.beginCompression(ctx, l)
		}
	})
}

// beginCompression compresses older files in the background, unless that is being done. The caller has the
// lock.
func (r *Rotator) beginCompression(ctx context.Context, l *containerLog) {
	if l.compressing {
		return
	}

	l.compressing = true
	r.running.Go(func() {
		young := false
		err := slot(ctx, r.compressions, func() (err error) {
			young, err = r.compressOlder(ctx, l.path)
			return unlessGone(err)
		})

		r.mu.Lock()
		defer r.mu.Unlock()

		l.compressing = false
		l.uncompressed = young || err != nil
		if ctx.Err() == nil {
			l.notCompressed.report(r.cfg.Log, err, "compression of logs", "container", l.id, "log", l.path)
		}
	})
}

// unlessGone returns no error if the container, or its logs, have gone meanwhile.
func unlessGone(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, runtime.ErrNotFound) {
		return nil
	}
	return err
}

// slot waits for one of the slots and does something in it.
func slot(ctx context.Context, slots chan struct{}, do func() error) error {
	select {
	case slots <- struct{}{}:
		defer func() { <-slots }()
		return do()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rotate rotates the log of one container: the oldest files go, then the log is renamed and opened again.
// None of that needs room on the disk but the new file's name.
func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		// An agent was killed between the rename and the reopening.
		return r.reopen(ctx, id)
	}

	rotated := containerlog.RotatedName(path, time.Now())
	if exists(rotated) || exists(rotated+".gz") {
		// It was rotated in this very second, or the clock was set back.
		return nil
	}

	if err := r.removeSurplus(path); err != nil {
		return fmt.Errorf("rotate log %s: %w", path, err)
	}
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}

	if err := r.reopen(ctx, id); err != nil {
		// The runtime still writes to the old file, where nobody would look for what it writes.
		return errors.Join(err, os.Rename(rotated, path))
	}

	return nil
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (r *Rotator) reopen(ctx context.Context, id string) error {
	if err := r.cfg.Runtime.ReopenLog(ctx, id); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", id, err)
	}
	return nil
}

// removeSurplus removes rotated files that are too many, the oldest first.
func (r *Rotator) removeSurplus(path string) error {
	files, err := containerlog.Rotated(path)
	if err != nil {
		return err
	}

	// The current file and the one that it is renamed to are two more.
	for _, name := range files[:max(len(files)-(r.cfg.MaxFiles-2), 0)] {
		if err := remove(name); err != nil {
			return err
		}
	}

	return nil
}

// remove removes a file. One that is not there is a success.
func remove(name string) error {
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// compressOlder compresses rotated files, but not the newest, which a reader may still follow, and none that
// is younger than the period of looks: those of a container that writes so fast are soon removed. It reports
// whether there are such young files.
func (r *Rotator) compressOlder(ctx context.Context, path string) (young bool, err error) {
	if err := removeUnfinished(path); err != nil {
		return false, err
	}

	files, err := containerlog.Rotated(path)
	if err != nil || len(files) == 0 {
		return false, err
	}

	for _, name := range files[:len(files)-1] {
		if strings.HasSuffix(name, ".gz") {
			continue
		}

		// The clock may have been set back.
		if age := time.Since(containerlog.RotatedAt(name)); age >= 0 && age < r.cfg.Every {
			young = true
			continue
		}

		if err := compress(ctx, name); err != nil {
			return young, err
		}
	}

	return young, nil
}

// compress writes NAME.tmp, renames it to NAME.gz and removes NAME. A file that is removed meanwhile is a
// success.
func compress(ctx context.Context, name string) (err error) {
	in, err := boundedfile.Open(name, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()

	if err := haveRoom(in); err != nil {
		return err
	}

	temporary := name + ".tmp"
	out, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}

	err = pack(out, interruptible{ctx, in})
	if closed := out.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = os.Rename(temporary, name+".gz")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("compress log %s: %w", name, err), remove(temporary))
	}

	return remove(name)
}

// pack compresses with the least effort: a fast writer leaves gigabytes.
func pack(out io.Writer, in io.Reader) error {
	z, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return err
	}
	if _, err := io.Copy(z, in); err != nil {
		return err
	}
	return z.Close()
}

// haveRoom returns ENOSPC if the disk does not have as much room as the file, which it may take compressed:
// the last of the disk is for the containers.
func haveRoom(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}

	var st unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
		return fmt.Errorf("file system of log %s: %w", f.Name(), err)
	}
	if int64(st.Bavail)*st.Bsize < info.Size() {
		return &fs.PathError{Op: "compress log", Path: f.Name(), Err: unix.ENOSPC}
	}

	return nil
}

// interruptible is a reader that ends with its context: a log may be large.
type interruptible struct {
	ctx context.Context
	in  io.Reader
}

// Read implements io.Reader.
func (i interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.in.Read(p)
}

// removeUnfinished removes the files of compressions that were interrupted.
func removeUnfinished(path string) error {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+".") && strings.HasSuffix(e.Name(), ".tmp") {
			err = errors.Join(err, remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
