package archive

import (
	"archive/tar"
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Write writes a volume: its open root directory, or the open file of a raw block volume, which nobody
// changes meanwhile. After an error, or when ctx has ended, what was written is not whole, and no reader
// takes it for that.
func Write(ctx context.Context, to io.Writer, h Header, content *os.File) error {
	buffered := bufio.NewWriterSize(&until{ctx, to}, copySize)
	sum := newSummedWriter(buffered)
	w := &writer{
		tar:    tar.NewWriter(sum),
		buffer: make([]byte, copySize),
		linked: map[uint64]string{},
	}

	h.Version = version
	if err := h.check(); err != nil {
		return err
	}
	if err := w.json(headerName, h); err != nil {
		return err
	}

	if err := w.content(h, content); err != nil {
		return err
	}

	// What fills the last block belongs to what is before the end.
	if err := w.tar.Flush(); err != nil {
		return err
	}
	if err := w.json(endName, end{SHA256: sum.String()}); err != nil {
		return err
	}

	return errors.Join(w.tar.Close(), buffered.Flush())
}

// until is a writer that fails when ctx has ended.
type until struct {
	ctx context.Context
	to  io.Writer
}

func (u *until) Write(p []byte) (int, error) {
	if err := context.Cause(u.ctx); err != nil {
		return 0, err
	}
	return u.to.Write(p)
}

// writer writes the entries.
type writer struct {
	tar    *tar.Writer
	buffer []byte

	// linked has the first name of each file with several, by inode.
	linked map[uint64]string
}

func (w *writer) json(name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return err
	}

	data = append(data, '\n')
	header := tar.Header{
		Typeflag: tar.TypeReg,
		Name:     name,
		Mode:     0o600,
		Size:     int64(len(data)),
		Format:   tar.FormatPAX,
	}
	if err := w.tar.WriteHeader(&header); err != nil {
		return err
	}

	_, err = w.tar.Write(data)
	return err
}

func (w *writer) content(h Header, content *os.File) error {
	if h.Access == Mount {
		return w.tree(content)
	}

	header := &tar.Header{
		Typeflag: tar.TypeReg,
		Name:     contentName,
		Mode:     0o600,
		Format:   tar.FormatPAX,
	}
	return w.file(header, content, h.Size)
}

// file writes a regular file of that size: as it is, or the parts between its holes.
func (w *writer) file(header *tar.Header, f *os.File, size int64) error {
	start, stop, err := nextExtent(f, 0, size)
	if err != nil {
		return err
	}

	if start == 0 && stop == size {
		header.Size = size
		if err := w.tar.WriteHeader(header); err != nil {
			return err
		}
		return w.copy(f, 0, size)
	}

	if header.PAXRecords == nil {
		header.PAXRecords = map[string]string{}
	}
	header.PAXRecords[sizeRecord] = strconv.FormatInt(size, 10)
	if err := w.tar.WriteHeader(header); err != nil {
		return err
	}

	for start < size {
		if err := w.extent(f, start, stop); err != nil {
			return err
		}
		if start, stop, err = nextExtent(f, stop, size); err != nil {
			return err
		}
	}

	return nil
}

func (w *writer) extent(f *os.File, start, stop int64) error {
	header := tar.Header{
		Typeflag: tar.TypeReg,
		Name:     extentsDir + strconv.FormatInt(start, 10),
		Mode:     0o600,
		Size:     stop - start,
		Format:   tar.FormatPAX,
	}
	if err := w.tar.WriteHeader(&header); err != nil {
		return err
	}
	return w.copy(f, start, stop-start)
}

// copy writes a part of a file as the content of the last entry.
func (w *writer) copy(f *os.File, start, size int64) error {
	n, err := io.CopyBuffer(justWriter{w.tar}, justReader{io.NewSectionReader(f, start, size)}, w.buffer)
	if err == nil && n < size {
		err = fmt.Errorf("%s has become shorter", f.Name())
	}
	return err
}

// justReader and justWriter hide what else they can do: the buffer is used.
type (
	justReader struct{ io.Reader }
	justWriter struct{ io.Writer }
)

// nextExtent returns where the next data of a file begins and ends, at or after an offset; size, size if
// there is none.
func nextExtent(f *os.File, from, size int64) (start, stop int64, err error) {
	if from >= size {
		return size, size, nil
	}

	start, err = unix.Seek(int(f.Fd()), from, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return size, size, nil
	case err != nil:
		return 0, 0, fmt.Errorf("find data of %s: %w", f.Name(), err)
	case start >= size:
		return size, size, nil
	}

	stop, err = unix.Seek(int(f.Fd()), start, unix.SEEK_HOLE)
	if err != nil {
		return 0, 0, fmt.Errorf("find holes of %s: %w", f.Name(), err)
	}
	return start, min(stop, size), nil
}

func timeOf(t unix.Timespec) time.Time { return time.Unix(t.Sec, t.Nsec) }
