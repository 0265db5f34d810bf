package usage

import (
	"bytes"
	"errors"
	"io/fs"
	"math"

	"golang.org/x/sys/unix"
)

// maxFile bounds what is read of one file.
const maxFile = 1 << 20

// files reads small files of the kernel into one buffer. It is for one goroutine. System calls are made
// directly: os.ReadFile would try to poll each of these files, which costs as much as to read it.
type files struct{ buf []byte }

// read returns what is in a file, until the next read.
func (f *files) read(dir, name string) ([]byte, error) {
	if f.buf == nil {
		f.buf = make([]byte, 16<<10)
	}

	fd, err := open(dir + "/" + name)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)

	n := 0
	for {
		if n == len(f.buf) {
			if n >= maxFile {
				return nil, unix.EFBIG
			}

			f.buf = append(f.buf, make([]byte, n)...)
		}

		got, err := unix.Read(fd, f.buf[n:])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ESRCH):
			// The group or process ended between the open of the file and the read.
			return nil, fs.ErrNotExist
		case err != nil:
			return nil, err
		case got == 0:
			return f.buf[:n], nil
		}

		n += got
	}
}

func open(path string) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

// number returns the number that a file has; without the file, 0.
func (f *files) number(dir, name string) uint64 {
	b, err := f.read(dir, name)
	if err != nil {
		return 0
	}
	return parse(b)
}

// limit is number for a file that may say that there is no limit: 0.
func (f *files) limit(dir, name string) uint64 {
	if n := f.number(dir, name); n < unlimited {
		return n
	}
	return 0
}

// unlimited is a limit that stands for none: v1 shows the largest multiple of a page, v2 "max".
const unlimited = 1 << 62

// parse returns the number that a text is; "max" is the largest, and what is none is 0.
func parse(b []byte) uint64 {
	b = bytes.TrimSpace(b)
	if string(b) == "max" {
		return math.MaxUint64
	}

	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0
		}

		if n > (math.MaxUint64-9)/10 {
			return math.MaxUint64
		}

		n = 10*n + uint64(c-'0')
	}

	return n
}
