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

// File is one container's log. Both streams of the container write to it.
type File struct {
	path    string
	mu      sync.Mutex // guards all below, and that one batch at a time is written
	f       *os.File
	dropped int64 // bytes of output lost to write errors since the last good write
}

// Open opens the log at path for appending, with its directory made if need be. The File is good also if that
// fails: it drops what it gets until Reopen succeeds.
func Open(path string) (*File, error) {
	l := &File{path: path}
	return l, l.Reopen()
}

func open(path string) (*os.File, error) {
	flags := os.O_WRONLY | os.O_APPEND | os.O_CREATE
	f, err := os.OpenFile(path, flags, 0o640)
	if os.IsNotExist(err) {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return nil, err
		}
		f, err = os.OpenFile(path, flags, 0o640)
	}
	return f, err
}

// Reopen opens the path anew, after a rotation renamed the file. On an error the old file stays in use.
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

var errNotOpen = errors.New("log file is not open")

// place is where in which file a batch goes.
type place struct {
	dev, ino uint64
	start    int64
}

func (l *File) place() (place, error) {
	if l.f == nil {
		return place{}, errNotOpen
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(l.f.Fd()), &st); err != nil {
		return place{}, err
	}
	return place{dev: st.Dev, ino: st.Ino, start: st.Size}, nil
}

// find opens the file that p speaks of: the one at path, or one that it was renamed to in the same directory.
// fs.ErrNotExist if it is gone.
func (p place) find(path string) (*os.File, error) {
	candidates := []string{path}
	if entries, err := os.ReadDir(filepath.Dir(path)); err == nil {
		for _, e := range entries {
			candidates = append(candidates, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}

	for _, name := range candidates {
		var st unix.Stat_t
		if unix.Lstat(name, &st) == nil && st.Dev == p.dev && st.Ino == p.ino &&
			st.Mode&unix.S_IFMT == unix.S_IFREG {
			return os.OpenFile(name, os.O_WRONLY, 0)
		}
	}

	return nil, fs.ErrNotExist
}
