package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// write writes a value to a file of a group in one call, as the kernel wants it.
func write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)

	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to %s: %w", value, path, err)
	}
	return nil
}

// keyed reads a file of lines "KEY NUMBER". Other lines are skipped.
func keyed(dir, file string) (map[string]uint64, error) {
	text, err := contents(dir, file)
	if err != nil {
		return nil, err
	}

	out := make(map[string]uint64, strings.Count(text, "\n"))
	for line := range strings.SplitSeq(text, "\n") {
		key, value, _ := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			out[key] = n
		}
	}

	// The files of a group that is being removed are empty.
	if len(out) == 0 {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}

	return out, nil
}

// buffers are for contents; the longest file, memory.stat on v2, has less than half of that.
var buffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

// contents reads a file of the kernel's with as few system calls as possible. The statistics of a node are
// some thousand files, and os.ReadFile spends half of its time on asking for the size, which such a file does
// not have, and on reading to the end, which a short read shows already.
func contents(dir, file string) (string, error) {
	path := filepath.Join(dir, file)
	fd, err := retried(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return "", &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)

	buf := buffers.Get().(*[16 << 10]byte)
	defer buffers.Put(buf)

	n, err := retried(func() (int, error) { return unix.Read(fd, buf[:]) })
	if err == nil && n == len(buf) {
		err = unix.EFBIG
	}
	if err != nil {
		return "", &fs.PathError{Op: "read", Path: path, Err: err}
	}

	return string(buf[:n]), nil
}

// retried repeats a call that a signal has interrupted.
func retried(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
