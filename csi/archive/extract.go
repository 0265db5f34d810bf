package archive

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
)

// syncEvery is how many bytes are written at most before a sync: the disk is not left behind, and a pool has
// the time to grow.
const syncEvery = 64 << 20

// extraction makes the files of an archive.
type extraction struct {
	root   *os.File
	block  int64 // bytes of the raw block volume; 0 in a file system
	began  bool  // the content of the raw block volume
	buffer []byte

	// parent is the directory of the last file, opened with O_PATH; parentPath is "" while there is none.
	parent     *os.File
	parentPath string

	// holey is the file with holes that extents belong to.
	holey     *os.File
	holeySize int64
	holeyAt   int64 // the end of the last extent
	holeyDone func() error
}

func newExtraction(content *os.File, h Header) (*extraction, error) {
	x := &extraction{root: content, buffer: make([]byte, copySize)}
	if h.Access == Mount {
		return x, nil
	}

	info, err := content.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() < h.Size {
		return nil, fmt.Errorf("a volume of %d bytes, the archive needs %d", info.Size(), h.Size)
	}
	x.block = h.Size
	return x, nil
}

func (x *extraction) close() {
	if x.parent != nil {
		x.parent.Close()
	}
	if x.holey != nil && x.holey != x.root {
		x.holey.Close()
	}
}

// finish ends the last file, and fails if there was no content.
func (x *extraction) finish() error {
	if err := x.endHoley(); err != nil {
		return err
	}
	if x.block > 0 && !x.began {
		return fmt.Errorf("%w: it has no content", ErrFormat)
	}
	return nil
}

// entry makes one file, or a part of it.
func (x *extraction) entry(header *tar.Header, data io.Reader) error {
	if offset, is := offsetOf(header.Name); is && header.Typeflag == tar.TypeReg {
		return x.extent(offset, header.Size, data)
	}
	if err := x.endHoley(); err != nil {
		return err
	}

	if x.block > 0 {
		return x.device(header, data)
	}
	below, is := strings.CutPrefix(header.Name, contentName+"/")
	if !is {
		return fmt.Errorf("%w: unknown entry", ErrFormat)
	}
	if header.Typeflag == tar.TypeDir {
		return x.directory(strings.TrimSuffix(below, "/"), header)
	}
	return x.file(below, header, data)
}

// device writes the content of a raw block volume, or what is before its first extent.
func (x *extraction) device(header *tar.Header, data io.Reader) error {
	if header.Name != contentName || header.Typeflag != tar.TypeReg || x.began {
		return fmt.Errorf("%w: unknown entry", ErrFormat)
	}
	x.began = true

	size, holey, err := sizeOf(header)
	if err != nil {
		return err
	}
	if size != x.block {
		return fmt.Errorf("%w: %d bytes of content, it is of a volume of %d", ErrFormat, size, x.block)
	}

	if holey {
		x.beginHoley(x.root, size, func() error { return nil })
		return nil
	}
	return x.write(x.root, 0, size, data)
}

// sizeOf returns the size of a file, and whether extents follow.
func sizeOf(header *tar.Header) (size int64, holey bool, err error) {
	record, holey := header.PAXRecords[sizeRecord]
	if !holey {
		return header.Size, false, nil
	}
	size, err = strconv.ParseInt(record, 10, 64)
	if err != nil || size < 0 || header.Size != 0 {
		return 0, false, fmt.Errorf("%w: record %s is %.80q", ErrFormat, sizeRecord, record)
	}
	return size, true, nil
}

func (x *extraction) beginHoley(f *os.File, size int64, done func() error) {
	x.holey, x.holeySize, x.holeyAt, x.holeyDone = f, size, 0, done
}

func (x *extraction) endHoley() error {
	if x.holey == nil {
		return nil
	}
	f, done := x.holey, x.holeyDone
	x.holey = nil
	if f != x.root {
		defer f.Close()
	}
	return done()
}

// extent writes a part of the last file. Parts come in order.
func (x *extraction) extent(offset, size int64, data io.Reader) error {
	if x.holey == nil || offset < x.holeyAt || size > x.holeySize-offset {
		return fmt.Errorf("%w: %d bytes that belong to no file", ErrFormat, size)
	}
	x.holeyAt = offset + size
	return x.write(x.holey, offset, size, data)
}

// write writes all of an entry.
func (x *extraction) write(f *os.File, offset, size int64, data io.Reader) error {
	for size > 0 {
		part := min(size, syncEvery)
		to := justWriter{io.NewOffsetWriter(f, offset)}
		n, err := io.CopyBuffer(to, justReader{io.LimitReader(data, part)}, x.buffer)
		if err == nil && n < part {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}

		offset, size = offset+part, size-part
		if part == syncEvery {
			if err := unix.Fdatasync(int(f.Fd())); err != nil {
				return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
			}
		}
	}

	return nil
}

// file makes what is not a directory.
func (x *extraction) file(below string, header *tar.Header, data io.Reader) error {
	parent, name, err := x.open(below)
	if err != nil {
		return err
	}

	at, mode := int(parent.Fd()), uint32(header.Mode&0o7777)
	switch header.Typeflag {
	case tar.TypeReg:
		return x.regular(parent, name, header, data)
	case tar.TypeLink:
		return x.link(at, name, header.Linkname)
	case tar.TypeSymlink:
		err = unix.Symlinkat(header.Linkname, at, name)
	case tar.TypeFifo:
		err = unix.Mknodat(at, name, unix.S_IFIFO|mode, 0)
	case tar.TypeChar:
		err = unix.Mknodat(at, name, unix.S_IFCHR|mode, deviceOf(header))
	case tar.TypeBlock:
		err = unix.Mknodat(at, name, unix.S_IFBLK|mode, deviceOf(header))
	default:
		return fmt.Errorf("%w: an entry of type %q", ErrFormat, header.Typeflag)
	}

	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	return settle(at, name, header)
}

func deviceOf(header *tar.Header) int {
	return int(unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor)))
}

func (x *extraction) regular(parent *os.File, name string, header *tar.Header, data io.Reader) error {
	size, holey, err := sizeOf(header)
	if err != nil {
		return err
	}

	const flags = unix.O_CREAT | unix.O_EXCL | unix.O_WRONLY | unix.O_NOFOLLOW | unix.O_CLOEXEC
	fd, err := unix.Openat(int(parent.Fd()), name, flags, 0o600)
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}

	f := os.NewFile(uintptr(fd), header.Name)
	if holey {
		if err := f.Truncate(size); err != nil {
			return errors.Join(err, f.Close())
		}

		// The directory stays open until another one is needed, which is after the last extent.
		x.beginHoley(f, size, func() error { return settle(int(parent.Fd()), name, header) })
		return nil
	}
	defer f.Close()

	if err := x.write(f, 0, size, data); err != nil {
		return err
	}
	return settle(int(parent.Fd()), name, header)
}

// link gives a file that is there a further name.
func (x *extraction) link(at int, name, first string) error {
	below, is := strings.CutPrefix(first, contentName+"/")
	if !is || !isBelow(below) {
		return fmt.Errorf("%w: a link to %.200q", ErrFormat, first)
	}

	fd, err := beneath.Open(int(x.root.Fd()), below, unix.O_PATH|unix.O_NOFOLLOW, parentRule)
	if errors.Is(err, unix.ELOOP) {
		return fmt.Errorf("%w: a link through a symbolic link, %.200q", ErrFormat, first)
	}
	if err != nil {
		return fmt.Errorf("link to %.200s: %w", first, err)
	}
	defer unix.Close(fd)

	if err := unix.Linkat(fd, "", at, name, unix.AT_EMPTY_PATH); err != nil {
		return fmt.Errorf("link to %.200s: %w", first, err)
	}
	return nil
}

// directory makes a directory, if that was not done for what is in it, and gives it what it should have.
func (x *extraction) directory(below string, header *tar.Header) error {
	dir, err := x.openDir(below)
	if err != nil {
		return err
	}
	return settle(int(dir.Fd()), ".", header)
}

const parentRule = beneath.NoLinks | beneath.OneFileSystem

// isBelow reports whether a path is one of a file below the root, written in the one way that there is.
func isBelow(below string) bool {
	return len(below) <= maxPath && filepath.IsLocal(below) && path.Clean(below) == below && below != "."
}

// open opens the directory that a file is to be made in.
func (x *extraction) open(below string) (parent *os.File, name string, err error) {
	if !isBelow(below) {
		return nil, "", fmt.Errorf("%w: a path that is not below the volume", ErrFormat)
	}
	dir, name := path.Split(below)
	parent, err = x.openDir(strings.TrimSuffix(dir, "/"))
	return parent, name, err
}

// openDir opens a directory, and makes it and those above if they are not there.
func (x *extraction) openDir(below string) (*os.File, error) {
	if below == "" {
		return x.root, nil
	}
	if !isBelow(below) {
		return nil, fmt.Errorf("%w: a path that is not below the volume", ErrFormat)
	}
	if x.parent != nil && x.parentPath == below {
		return x.parent, nil
	}

	fd, err := beneath.Open(int(x.root.Fd()), below, unix.O_RDONLY|unix.O_DIRECTORY, parentRule)
	if errors.Is(err, unix.ENOENT) {
		fd, err = x.makeDir(below)
	}
	if err != nil {
		return nil, fmt.Errorf("directory %.200s: %w", below, err)
	}

	if x.parent != nil {
		x.parent.Close()
	}
	x.parent, x.parentPath = os.NewFile(uintptr(fd), below), below
	return x.parent, nil
}

func (x *extraction) makeDir(below string) (int, error) {
	above, name := path.Split(below)
	parent := int(x.root.Fd())
	if above = strings.TrimSuffix(above, "/"); above != "" {
		fd, err := beneath.Open(parent, above, unix.O_PATH|unix.O_DIRECTORY, parentRule)
		if errors.Is(err, unix.ENOENT) {
			fd, err = x.makeDir(above)
		}
		if err != nil {
			return -1, err
		}
		defer unix.Close(fd)
		parent = fd
	}

	if err := unix.Mkdirat(parent, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return -1, err
	}
	return beneath.Open(parent, name, unix.O_RDONLY|unix.O_DIRECTORY, parentRule)
}

// settle gives a new file owner, mode, attributes and time, in this order: a new owner takes modes and
// capabilities away, and all of it changes times.
func settle(at int, name string, header *tar.Header) error {
	if err := unix.Fchownat(at, name, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set owner: %w", err)
	}
	if header.Typeflag != tar.TypeSymlink {
		if err := unix.Fchmodat(at, name, uint32(header.Mode&0o7777), 0); err != nil {
			return fmt.Errorf("set mode: %w", err)
		}
	}
	if err := setAttributes(beneath.Path(at)+"/"+name, header.PAXRecords); err != nil {
		return err
	}

	changed := unix.Timespec{Sec: header.ModTime.Unix(), Nsec: int64(header.ModTime.Nanosecond())}
	times := []unix.Timespec{changed, changed}
	if err := unix.UtimesNanoAt(at, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set time: %w", err)
	}

	return nil
}
