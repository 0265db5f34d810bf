// Package boundedfile reads files that a container, an image or another party that is not trusted can write.
// Such a file may be a sparse one of a terabyte, a FIFO that nobody writes to, a device, a symbolic link to a
// secret of the node, or hold a lease that makes open(2) wait. So only regular files are opened, no link is
// followed, no call waits, and no more is read than the caller allows.
package boundedfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// ErrTooLarge and ErrNotRegular are the errors of files that are refused.
var (
	ErrTooLarge   = errors.New("file too large")
	ErrNotRegular = errors.New("not a regular file")
)

// Read returns the content of the regular file path, which must have at most limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	return Contents(f, limit)
}

// ReadLinked is Read for a file of the administrator: path may be a link and lead through others.
func ReadLinked(path string, limit int64) ([]byte, error) {
	target, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	return Read(target, limit)
}

// Open opens the regular file path with the flags of os.OpenFile, but does not create it. Only the last
// component of path is checked: the directory must be the caller's own.
func Open(path string, flags int) (*os.File, error) {
	handle, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(handle)

	return reopen(handle, path, flags)
}

// OpenBelow opens the regular file path below the directory dir, whose content is not trusted: links are
// followed, but never out of dir.
func OpenBelow(dir, path string, flags int) (*os.File, error) {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir, Err: err}
	}
	defer unix.Close(root)

	handle, err := beneath.Open(root, path, unix.O_PATH, beneath.Links)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(handle)

	return reopen(handle, path, flags)
}

// reopen opens the file that an O_PATH descriptor stands for, if it is a regular one. O_PATH has no side
// effects on what is there, but the open of a device may have, such as that of a watchdog.
func reopen(handle int, path string, flags int) (*os.File, error) {
	var st unix.Stat_t
	if err := unix.Fstat(handle, &st); err != nil {
		return nil, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrNotRegular}
	}

	// O_NONBLOCK: a lease (F_SETLEASE) of a container would make this wait for up to 45 s.
	fd, err := unix.Open(beneath.Path(handle), flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}

	return os.NewFile(uintptr(fd), path), nil
}

// Contents reads f from its current offset to its end. f must be a regular file and have at most limit bytes
// left.
func Contents(f *os.File, limit int64) ([]byte, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: ErrNotRegular}
	}

	// The size may change while the file is read, so that it is the reader that is bounded.
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}

	if int64(len(data)) > limit {
		err := fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
		return nil, &fs.PathError{Op: "read", Path: f.Name(), Err: err}
	}

	return data, nil
}

// Tail returns the last size bytes of the regular file path, or all of a shorter one.
func Tail(path string, size int64) ([]byte, error) {
	f, err := Open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()

	info, err := f.Stat()
	if err != nil {
		return nil, err
	}

	data := make([]byte, min(info.Size(), size))
	n, err := f.ReadAt(data, info.Size()-int64(len(data)))
	if errors.Is(err, io.EOF) {
		// The file has become shorter.
		err = nil
	}

	return data[:n], err
}
