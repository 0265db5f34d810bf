package layer

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image/tape"
)

const (
	blockSize = 4096

	// maxHoles bounds the holes of all files of a layer together, in bytes: they cost nothing to send, but
	// time to read.
	maxHoles = 128 << 30
)

func (t *tree) file(parent openDirectory, base string, h *tar.Header, content io.Reader) error {
	var fd int
	err := t.put(parent, base, func() (err error) {
		flags := unix.O_WRONLY | unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC
		fd, err = unix.Openat(parent.fd, base, flags, 0o600)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	t.tape.BeginFile()
	n, written, err := t.copy(fd, content)
	if err != nil {
		return err
	}
	if n != h.Size {
		return fmt.Errorf("%d bytes, want %d", n, h.Size)
	}
	if err := endFile(t.tape, fd, n); err != nil {
		return err
	}

	t.result.Bytes += written
	t.result.Inodes++
	return t.describeFile(fd, h)
}

// endFile notes on a tape where the file is whose content has just been read.
func endFile(to *tape.Recorder, fd int, size int64) error {
	if to == nil {
		return nil
	}

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}

	to.EndFile(st.Ino, size)
	return nil
}

// copy writes by plain system calls: an os.File for each of ten thousand small files would cost as much as
// the files. Blocks of zeros become holes, whether they were holes in the archive (which archive/tar reads as
// zeros) or not; written counts the bytes of the other blocks.
func (t *tree) copy(fd int, content io.Reader) (size, written int64, err error) {
	// end is where the last data that was written ends.
	end := int64(0)
	for {
		n, err := fill(content, t.buffer)
		for rest := t.buffer[:n]; len(rest) > 0; {
			piece, zeros := cut(rest, size)
			rest = rest[len(piece):]
			if zeros {
				t.holes += int64(len(piece))
			} else {
				if err := writeAt(fd, piece, size); err != nil {
					return size, written, err
				}

				end = size + int64(len(piece))
				written += wholeBlocks(end) - wholeBlocks(size)
			}

			size += int64(len(piece))
		}

		if t.holes > maxHoles {
			return size, written, fmt.Errorf("the layer's files have more than %d GB of zeros", maxHoles>>30)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return size, written, err
		}
	}

	if end < size {
		if err := unix.Ftruncate(fd, size); err != nil {
			return size, written, os.NewSyscallError("ftruncate", err)
		}
	}

	return size, written, nil
}

func wholeBlocks(size int64) int64 { return (size + blockSize - 1) &^ (blockSize - 1) }

// cut returns the beginning of data that is handled at once: as many blocks of zeros as there are, or what
// comes before the next such block. offset is the place of data in its file, which says where blocks begin.
func cut(data []byte, offset int64) (piece []byte, zeros bool) {
	// block returns where the block at from ends.
	block := func(from int) int {
		to := from + blockSize - int((offset+int64(from))%blockSize)
		return min(to, len(data))
	}

	end := block(0)
	zeros = isZero(data[:end])
	for end < len(data) {
		next := block(end)
		if isZero(data[end:next]) != zeros {
			break
		}

		end = next
	}

	return data[:end], zeros
}

// isZero reports whether a block is all zeros.
func isZero(block []byte) bool {
	return block[0] == 0 && bytes.Equal(block[:len(block)-1], block[1:])
}

func writeAt(fd int, data []byte, offset int64) error {
	for len(data) > 0 {
		n, err := unix.Pwrite(fd, data, offset)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("write", err)
		}

		data = data[n:]
		offset += int64(n)
	}

	return nil
}

const xattrPrefix = "SCHILY.xattr." // PAX records of extended attributes

// describeFile sets owner, mode, attributes and time of an open file or directory. The order matters: a
// change of owner clears the setuid bits and capabilities, and the time comes last because all others change
// it.
func (t *tree) describeFile(fd int, h *tar.Header) error {
	if err := unix.Fchown(fd, h.Uid, h.Gid); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if err := unix.Fchmod(fd, uint32(h.Mode)&0o7777); err != nil {
		return fmt.Errorf("mode %o: %w", h.Mode, err)
	}

	for key, value := range h.PAXRecords {
		name, ok := strings.CutPrefix(key, xattrPrefix)
		if !ok {
			continue
		}

		if isOfOverlayfs(name) {
			t.result.Dropped++
			continue
		}

		if err := setXattr(fd, name, []byte(value)); err != nil {
			return err
		}
	}

	return setTime(fd, "", h.ModTime, unix.AT_EMPTY_PATH)
}

// describe does the same for files that cannot be opened: links, devices, FIFOs. Symbolic links do not have a
// mode, and their attributes are left out, as Linux allows only trusted and security ones.
func (t *tree) describe(parent int, base string, h *tar.Header) error {
	if err := unix.Fchownat(parent, base, h.Uid, h.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("owner %d:%d: %w", h.Uid, h.Gid, err)
	}
	if h.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(parent, base, uint32(h.Mode)&0o7777, 0); err != nil {
			return fmt.Errorf("mode %o: %w", h.Mode, err)
		}
	}
	return setTime(parent, base, h.ModTime, unix.AT_SYMLINK_NOFOLLOW)
}

// isOfOverlayfs reports whether overlayfs gives an attribute a meaning: what to hide, or where to look. A
// layer must not set it; one that a tool has packed from an overlay of its own has no meaning here.
func isOfOverlayfs(name string) bool {
	return strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.")
}

// setXattr sets an attribute. One that the filesystem or the kernel's security modules do not support is left
// out.
func setXattr(fd int, name string, value []byte) error {
	err := unix.Fsetxattr(fd, name, value, 0)
	if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && name != "security.capability" {
		return nil
	}
	if err != nil {
		return fmt.Errorf("attribute %q: %w", shorten(name), err)
	}
	return nil
}

// timeOf returns a time as filesystems take it: not before 1970.
func timeOf(at time.Time) (unix.Timespec, error) {
	if at.IsZero() || at.Unix() < 0 {
		at = time.Unix(0, 0)
	}
	ts, err := unix.TimeToTimespec(at)
	if err != nil {
		return ts, fmt.Errorf("time %v: %w", at, err)
	}
	return ts, nil
}

func setTime(dir int, base string, at time.Time, flags int) error {
	ts, err := timeOf(at)
	if err != nil {
		return err
	}
	if err := unix.UtimesNanoAt(dir, base, []unix.Timespec{ts, ts}, flags); err != nil {
		return fmt.Errorf("set time: %w", err)
	}
	return nil
}

// setDirectoryTime sets the time of a directory below root.
func setDirectoryTime(root int, name string, at unix.Timespec) error {
	if name == "" {
		name = "."
	}
	return unix.UtimesNanoAt(root, name, []unix.Timespec{at, at}, unix.AT_SYMLINK_NOFOLLOW)
}
