package durable

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Unreadable is a record that could not be read. Its file is not deleted but set aside.
type Unreadable struct {
	Name  string
	Moved string // where the file is now
	Err   error
}

// List returns all records. Files that are not readable records are moved to DIR/quarantine and returned as
// well, so that one of them keeps nobody from the others; temporary files of killed writers are removed.
// Where descriptors or memory are short, List fails and moves nothing. Call it at the start, before there
// are writers.
func (s *Store[T]) List() (records map[string]T, unreadable []Unreadable, err error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, nil, err
	}

	var names []string
	for _, e := range entries {
		name, isRecord := strings.CutSuffix(e.Name(), ".json")
		switch {
		case e.IsDir():
		case strings.HasPrefix(e.Name(), tempPrefix):
			os.Remove(filepath.Join(s.dir, e.Name()))
		case !isRecord || !ValidName(name):
			unreadable = append(unreadable, s.quarantine(e.Name(), errors.New("not a record")))
		default:
			names = append(names, name)
		}
	}

	records, bad, err := s.readAll(names)
	if err != nil {
		return nil, nil, err
	}
	for name, err := range bad {
		unreadable = append(unreadable, s.quarantine(name+".json", err))
	}

	return records, unreadable, nil
}

// isPassing reports whether a file may be read by another attempt.
func isPassing(err error) bool {
	return slices.ContainsFunc(
		[]error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.EAGAIN},
		func(passing error) bool { return errors.Is(err, passing) },
	)
}

// readAll reads records side by side: where there are thousands, who starts waits for it. bad are those that
// are no records or cannot be read, and why. What another attempt may read is an error.
func (s *Store[T]) readAll(names []string) (records map[string]T, bad map[string]error, err error) {
	dir, err := os.Open(s.dir)
	if err != nil {
		return nil, nil, err
	}
	defer dir.Close()
	records, bad = make(map[string]T, len(names)), map[string]error{}

	// mu guards all three.
	var mu sync.Mutex
	var unread error
	enter := func(name string, record T, err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case isPassing(err):
			unread = fmt.Errorf("records in %s: %w", s.dir, err)
		case err != nil:
			bad[name] = err
		default:
			records[name] = record
		}
	}

	var next atomic.Int64
	var group sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(names)) {
		group.Go(func() {
			var buf []byte
			for i := next.Add(1) - 1; i < int64(len(names)); i = next.Add(1) - 1 {
				record, used, err := read[T](int(dir.Fd()), names[i]+".json", buf)
				buf = used
				enter(names[i], record, err)
			}
		})
	}

	group.Wait()
	return records, bad, unread
}

// read reads a record at a path that begins at a directory, with a buffer that it returns for the next one.
func read[T any](dir int, path string, buf []byte) (record T, _ []byte, err error) {
	if buf, err = readInto(dir, path, buf); err != nil {
		return record, buf, err
	}
	if err := json.Unmarshal(buf, &record); err != nil {
		return record, buf, fmt.Errorf("record %s: %w", path, err)
	}
	return record, buf, nil
}

// recordSize is what most records have less than.
const recordSize = 4 << 10

// readInto reads a whole file into a buffer, which it makes larger where it has to. Of the calls that
// os.ReadFile makes, most are for files that are no regular ones.
func readInto(dir int, path string, buf []byte) ([]byte, error) {
	fd, err := ignoringEINTR(func() (int, error) {
		return unix.Openat(dir, path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	if err != nil {
		return buf, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)

	buf = slices.Grow(buf[:0], recordSize)
	for {
		n, err := ignoringEINTR(func() (int, error) { return unix.Read(fd, buf[len(buf):cap(buf)]) })
		if err != nil {
			return buf, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		if n == 0 {
			return buf, nil
		}
		if buf = buf[:len(buf)+n]; len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
	}
}

func ignoringEINTR(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// quarantine sets a file aside. Its new name has the time, so that no earlier one is overwritten.
func (s *Store[T]) quarantine(file string, cause error) Unreadable {
	u := Unreadable{Name: strings.TrimSuffix(file, ".json"), Err: cause}
	dir := filepath.Join(s.dir, "quarantine")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		u.Err = errors.Join(cause, err)
		return u
	}
	u.Moved = filepath.Join(dir, fmt.Sprintf("%s.%d", file, time.Now().UnixNano()))
	if err := os.Rename(filepath.Join(s.dir, file), u.Moved); err != nil {
		u.Err = errors.Join(cause, err)
	}
	return u
}
