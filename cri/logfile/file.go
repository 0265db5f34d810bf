package logfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// File is one container's log. Both streams of the container write to it. Its methods may be called
// concurrently.
type File struct {
	path string

	// mu guards all below, and keeps the lines of two batches apart.
	mu      sync.Mutex
	f       *os.File
	dropped int64 // bytes of output lost to write errors since the last good write
}

// Open opens the log at path for appending and makes its directory if it is missing. The File is usable even
// if that fails: it drops what it gets until Reopen succeeds.
func Open(path string) (*File, error) {
	l := &File{path: path}
	return l, l.Reopen()
}

func open(path string) (*os.File, error) {
	const flags = os.O_WRONLY | os.O_APPEND | os.O_CREATE

	f, err := os.OpenFile(path, flags, 0o640)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	return os.OpenFile(path, flags, 0o640)
}

// Path returns the path that the log was opened by.
func (l *File) Path() string { return l.path }

// Reopen opens the path again, after a rotation has renamed the file. On an error the old file stays in use.
func (l *File) Reopen() error {
	f, err := open(l.path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	if l.f != nil {
		l.f.Close()
	}

	l.f = f
	return nil
}

// Close closes the file.
func (l *File) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	return l.f.Close()
}

// DropError is returned for output that is lost because the log could not be written.
type DropError struct {
	Bytes int64 // of output lost since the last good write

	// First: this is the first loss since the last good write, the one to log.
	First bool

	Err error
}

func (e *DropError) Error() string { return fmt.Sprintf("output dropped: %v", e.Err) }
func (e *DropError) Unwrap() error { return e.Err }

var errNotOpen = errors.New("log file is not open")

// Append writes lines, which stand for that many bytes of a container's output, at the end of the file, all
// of them or none. begin is called with the place of the first byte before anything is written. On an error
// the output counts as lost, and the error is a *DropError.
func (l *File) Append(lines []byte, output int, begin func(Place)) error {
	l.mu.Lock()
	defer l.mu.Unlock()

	if err := l.append(lines, begin); err != nil {
		first := l.dropped == 0
		l.dropped += int64(output)
		return &DropError{Bytes: l.dropped, First: first, Err: err}
	}
	l.dropped = 0
	return nil
}

// append needs l.mu.
func (l *File) append(lines []byte, begin func(Place)) error {
	if l.f == nil {
		return errNotOpen
	}

	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return err
	}

	begin(Place{Dev: st.Dev, Ino: st.Ino, Start: st.Size})
	if _, err := l.f.Write(lines); err != nil {
		// Half a line would spoil the next one.
		return errors.Join(err, l.f.Truncate(st.Size))
	}

	return nil
}

// Place is where an append begins: the file, whatever its name is by now, and its size before.
type Place struct {
	Dev   uint64
	Ino   uint64
	Start int64
}

// Complete reports whether the append of length bytes that began at p was carried out whole. path is the
// log's; a rotation may have renamed the file within its directory. Of an append that was cut short, nothing
// stays in the file; neither does anything if the file has been removed.
func (p Place) Complete(path string, length int64) (bool, error) {
	f, err := p.open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()

	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	if st.Size() >= p.Start+length {
		return true, nil
	}
	if st.Size() > p.Start {
		return false, f.Truncate(p.Start)
	}

	return false, nil
}

// open finds the file: at path, or by another name in the same directory. fs.ErrNotExist if it is gone.
func (p Place) open(path string) (*os.File, error) {
	candidates := []string{path}
	if entries, err := os.ReadDir(filepath.Dir(path)); err == nil {
		for _, e := range entries {
			candidates = append(candidates, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}

	for _, name := range candidates {
		var st unix.Stat_t
		if unix.Lstat(name, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Dev == p.Dev && st.Ino == p.Ino {
			return os.OpenFile(name, os.O_WRONLY, 0)
		}
	}

	return nil, fs.ErrNotExist
}
