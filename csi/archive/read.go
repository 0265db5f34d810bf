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
	"strings"
)

// Reader reads a volume. It is not safe for concurrent use.
type Reader struct {
	Header Header

	ctx context.Context
	sum *summedReader
	tar *tar.Reader
}

// NewReader reads the header. Reads fail when ctx has ended, as far as they do not wait.
func NewReader(ctx context.Context, from io.Reader) (*Reader, error) {
	r := &Reader{ctx: ctx, sum: newSummedReader(bufio.NewReaderSize(from, copySize))}
	r.tar = tar.NewReader(r.sum)

	header, err := r.next()
	if err != nil {
		return nil, err
	}
	if header.Name != headerName || header.Typeflag != tar.TypeReg {
		return nil, fmt.Errorf("%w: it begins with %.80q", ErrFormat, header.Name)
	}

	data, err := r.small(header, maxHeader)
	if err != nil {
		return nil, err
	}
	r.Header, err = parseHeader(data)
	return r, err
}

// Extract writes all that follows to the open root directory of an empty volume, or to the open file of a raw
// block volume, which may be larger than it has to be. It returns nil only if the archive is whole; what was
// written is not synced.
func (r *Reader) Extract(ctx context.Context, content *os.File) error {
	r.ctx = ctx
	x, err := newExtraction(content, r.Header)
	if err != nil {
		return err
	}
	defer x.close()

	for {
		header, err := r.next()
		if err != nil {
			return err
		}
		if header.Name == endName {
			return errors.Join(x.finish(), r.finish(header))
		}

		if err := x.entry(header, r.content()); err != nil {
			return fmt.Errorf("%.200s: %w", header.Name, err)
		}
	}
}

// next goes on to the next entry. Of the last one everything has been read.
func (r *Reader) next() (*tar.Header, error) {
	if _, err := io.Copy(io.Discard, r.content()); err != nil {
		return nil, r.explain(err)
	}

	r.sum.setMark()
	header, err := r.tar.Next()
	if err != nil {
		return nil, r.explain(err)
	}

	// They are made up by who reads them: an archive of a few bytes would be a file of any size.
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return nil, fmt.Errorf("%w: %.200s has record %.80s", ErrFormat, header.Name, record)
		}
	}
	if header.Typeflag == tar.TypeGNUSparse {
		return nil, fmt.Errorf("%w: %.200s is a sparse file of GNU tar", ErrFormat, header.Name)
	}

	return header, nil
}

// explain says that a stream that ends too early was cut.
func (r *Reader) explain(err error) error {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return fmt.Errorf("%w: it ends after %d bytes, before its end is reached", ErrFormat, r.sum.at)
	case errors.Is(err, tar.ErrHeader):
		return fmt.Errorf("%w: %w near byte %d", ErrFormat, err, r.sum.at)
	}
	return err
}

// content is that of the present entry.
func (r *Reader) content() io.Reader { return &entryReader{r} }

// entryReader reads the content of an entry, which must be there in full.
type entryReader struct{ r *Reader }

func (e *entryReader) Read(p []byte) (int, error) {
	if err := context.Cause(e.r.ctx); err != nil {
		return 0, err
	}
	n, err := e.r.tar.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = e.r.explain(err)
	}
	return n, err
}

// small reads the whole content of an entry that is not large.
func (r *Reader) small(header *tar.Header, limit int64) ([]byte, error) {
	if header.Size > limit {
		return nil, fmt.Errorf("%w: %s has %d bytes", ErrFormat, header.Name, header.Size)
	}
	return io.ReadAll(r.content())
}

// finish checks the last entry, and that nothing follows.
func (r *Reader) finish(header *tar.Header) error {
	want := r.sum.marked
	data, err := r.small(header, maxEnd)
	if err != nil {
		return err
	}

	var last end
	if err := json.Unmarshal(data, &last); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrFormat, endName, err)
	}
	if last.SHA256 != want {
		return fmt.Errorf("%w: its bytes have changed: their SHA-256 is %s, it should be %.80s",
			ErrFormat, want, last.SHA256)
	}

	return r.checkTrailer()
}

// checkTrailer expects two empty blocks, and nothing behind them.
func (r *Reader) checkTrailer() error {
	r.sum.setMark()
	whole := r.sum.mark + 2*blockSize
	if _, err := r.tar.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrFormat)
	}
	if r.sum.at < whole {
		return r.explain(io.ErrUnexpectedEOF)
	}
	if n, _ := r.sum.Read(make([]byte, 1)); n > 0 {
		return fmt.Errorf("%w: something follows its end", ErrFormat)
	}
	return nil
}

// offsetOf returns where an extent begins.
func offsetOf(name string) (int64, bool) {
	number, is := strings.CutPrefix(name, extentsDir)
	if !is {
		return 0, false
	}
	offset, err := strconv.ParseInt(number, 10, 64)
	return offset, err == nil && offset >= 0
}
