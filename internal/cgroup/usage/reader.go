package usage

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Group says where a control group is.
type Group struct {
	// Name is for errors.
	Name string
	V2   bool

	// Dir returns the directory of the group in the hierarchy of a controller, or "" if that is not mounted.
	// On v2 all controllers have the same.
	Dir func(controller string) string

	// PageSizes are the kernel's names of the sizes of huge pages ("2MB").
	PageSizes []string
}

// Reader reads the counters of one group. It must not be used by several goroutines at once.
//
// Between readings it keeps the directories of the group open, and if it may the files that are read each
// time: to read an open file costs a tenth of opening it. The kernel lets a group be removed while its files
// are open.
type Reader struct {
	group Group
	keep  bool

	// keepDirs is set where directories are kept open and files are not.
	keepDirs bool

	// dirs and files are descriptors; 0 is one that is not open, absent one that does not exist.
	dirs  [controllers]int
	files [counterFiles]int
}

const absent = -1

// NewReader returns a Reader of a group, which need not exist yet. With keep, it keeps files open between
// readings.
func NewReader(group Group, keep bool) *Reader { return &Reader{group: group, keep: keep} }

// KeepDirs has a Reader that does not keep files keep the group's directories open between readings. Their
// descriptors (O_PATH) cost the kernel a twentieth of those of files that have been read.
func (r *Reader) KeepDirs() { r.keepDirs = true }

// release closes what is not kept between readings.
func (r *Reader) release() {
	if !r.keep && !r.keepDirs {
		r.Close()
	}
}

// MaxOpen is how many descriptors a Reader that keeps files has open at most.
const MaxOpen = int(controllers) + hotFiles

// Close closes what is open. The Reader may be used again.
func (r *Reader) Close() {
	closeAll(r.dirs[:])
	closeAll(r.files[:])
}

func closeAll(descriptors []int) {
	for i, fd := range descriptors {
		if fd > 0 {
			unix.Close(fd)
		}
		descriptors[i] = 0
	}
}

// buffers are for the contents of files. The longest one of a fixed size, memory.stat on v2, has less than
// half of that.
var buffers = sync.Pool{New: func() any { return new(buffer) }}

// buffer holds the content of one file at a time. It grows for files that have a line for each device.
type buffer struct{ bytes []byte }

const (
	bufferSize    = 16 << 10
	maxBufferSize = 1 << 20
)

// Read reads the group's counters; fs.ErrNotExist when the group is gone.
func (r *Reader) Read(detail Detail) (Reading, error) {
	known := r.dirs[0] > 0
	out, err := r.read(detail)
	if known && errors.Is(err, fs.ErrNotExist) {
		// A group of this name may have been made again, whose files are other ones.
		out, err = r.read(detail)
	}
	return out, err
}

func (r *Reader) read(detail Detail) (Reading, error) {
	buf := buffers.Get().(*buffer)
	defer buffers.Put(buf)

	out := Reading{Time: time.Now(), Detail: detail}
	p := &pass{reader: r, buffer: buf, out: &out}
	if r.group.V2 {
		p.unified()
	} else {
		p.legacy()
	}

	r.release()
	if p.err != nil {
		r.Close()
		return Reading{}, fmt.Errorf("read cgroup %s: %w", r.group.Name, p.err)
	}

	return out, nil
}

// pass is one reading that is being made. After an error it reads nothing more.
type pass struct {
	reader *Reader
	buffer *buffer
	out    *Reading
	err    error
}

// need returns the content of a file that each group has.
func (p *pass) need(f counterFile) []byte {
	if p.err != nil {
		return nil
	}

	data, err := p.reader.contents(f, p.buffer)
	if errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) {
		// The group was removed, maybe between the open of a file and the read.
		err = fs.ErrNotExist
	}

	if err != nil {
		p.err = fmt.Errorf("%s: %w", table[f].name, err)
	}

	return data
}

// want returns the content of a file that a group or a kernel may be without; empty if it is.
func (p *pass) want(f counterFile) []byte {
	if p.err != nil {
		return nil
	}

	data, err := p.reader.contents(f, p.buffer)
	if err != nil {
		return nil
	}
	return data
}

// contents reads a file of the table into a buffer.
func (r *Reader) contents(f counterFile, buf *buffer) ([]byte, error) {
	fd := r.files[f]
	switch {
	case fd == absent:
		return nil, unix.ENOENT
	case fd > 0:
		return readAll(fd, buf)
	}

	dir, err := r.dir(table[f].controller)
	if err != nil {
		return nil, err
	}

	fd, err = openAt(dir, table[f].name)
	if err != nil {
		if errors.Is(err, unix.ENOENT) && r.keep {
			r.files[f] = absent
		}

		return nil, err
	}

	if r.keep && table[f].hot {
		r.files[f] = fd
		return readAll(fd, buf)
	}

	defer unix.Close(fd)

	return readAll(fd, buf)
}

// dir returns a descriptor of the group's directory in a hierarchy.
func (r *Reader) dir(c controller) (int, error) {
	if r.group.V2 {
		c = 0
	}

	if fd := r.dirs[c]; fd > 0 {
		return fd, nil
	}

	path := r.group.Dir(controllerNames[c])
	if path == "" {
		return 0, fmt.Errorf("controller %s is not mounted: %w", controllerNames[c], errors.ErrUnsupported)
	}

	fd, err := retried(func() (int, error) {
		return unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	})
	if err == nil {
		r.dirs[c] = fd
	}

	return fd, err
}

// hugePageFile reads a file whose name has a size of pages in it; empty if it does not exist.
func (p *pass) hugePageFile(name string) []byte {
	if p.err != nil {
		return nil
	}

	dir, err := p.reader.dir(hugetlb)
	if err != nil {
		return nil
	}

	fd, err := openAt(dir, name)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)

	data, err := readAll(fd, p.buffer)
	if err != nil {
		return nil
	}

	return data
}

func openAt(dir int, name string) (int, error) {
	return retried(func() (int, error) { return unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
}

// readAll reads a file from its beginning in one call, as the kernel makes its text at once.
func readAll(fd int, buf *buffer) ([]byte, error) {
	if len(buf.bytes) == 0 {
		buf.bytes = make([]byte, bufferSize)
	}

	for {
		n, err := retried(func() (int, error) { return unix.Pread(fd, buf.bytes, 0) })
		switch {
		case err != nil:
			return nil, err
		case n < len(buf.bytes):
			return buf.bytes[:n], nil
		case n >= maxBufferSize:
			return nil, unix.EFBIG
		}

		buf.bytes = make([]byte, 4*len(buf.bytes))
	}
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
