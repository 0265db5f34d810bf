package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// temporary is the pattern of files that are not a reservation yet.
const temporary = ".new-*"

// publish creates the reservation with its content, and reports false when there is one already. An empty
// one, torn by a crash of another plugin, is replaced.
func (p *Pool) publish(a netip.Addr, owner Owner) (bool, error) {
	for {
		err := linkWhole(p.dir, p.file(a), owner.content())
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return false, fmt.Errorf("reserve address %s: %w", a, err)
		}
		if p.isTaken(a) {
			return false, nil
		}
		if err := os.Remove(p.file(a)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return false, fmt.Errorf("remove empty reservation of %s: %w", a, err)
		}
	}
}

// linkWhole makes a file appear at path with its content, or fails with ErrExist.
func linkWhole(dir, path, content string) error {
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return linkNamed(dir, path, content)
	}
	defer func() { _ = unix.Close(fd) }()

	if err := writeAll(fd, content); err != nil {
		return err
	}

	// open(2), O_TMPFILE: this is how an unprivileged process gives such a file a name.
	unnamed := "/proc/self/fd/" + strconv.Itoa(fd)
	err = unix.Linkat(unix.AT_FDCWD, unnamed, unix.AT_FDCWD, path, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &os.LinkError{
			Op:  "link",
			Old: "new reservation",
			New: path,
			Err: err,
		}
	}

	return nil
}

// linkNamed is linkWhole for file systems without O_TMPFILE, by a temporary name.
func linkNamed(dir, path, content string) error {
	temp, err := os.CreateTemp(dir, temporary)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.WriteString(content)
	if err := errors.Join(err, temp.Close()); err != nil {
		return err
	}
	return os.Link(temp.Name(), path)
}

func writeAll(fd int, content string) error {
	n, err := unix.Write(fd, []byte(content))
	switch {
	case err != nil:
		return os.NewSyscallError("write", err)
	case n != len(content):
		return fmt.Errorf("write %d bytes of %d: %w", n, len(content), unix.ENOSPC)
	}
	return nil
}

// Writable returns an error when a reservation could not be written now, as on a full disk. It tries, and
// leaves nothing behind.
func (p *Pool) Writable() error {
	fd, err := unix.Open(p.dir, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) {
		return p.writableByName()
	}
	if err != nil {
		return &os.PathError{Op: "write a reservation to", Path: p.dir, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()

	if err := writeAll(fd, probe); err != nil {
		return &os.PathError{Op: "write a reservation to", Path: p.dir, Err: err}
	}

	return nil
}

// probe is as long as a reservation.
var probe = strings.Repeat("x", 80)

// writableByName is Writable for file systems without O_TMPFILE. GC removes what a kill leaves.
func (p *Pool) writableByName() error {
	temp, err := os.CreateTemp(p.dir, temporary)
	if err != nil {
		return err
	}
	_, err = temp.WriteString(probe)
	return errors.Join(err, temp.Close(), os.Remove(temp.Name()))
}
