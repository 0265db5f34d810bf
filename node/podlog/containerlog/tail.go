package containerlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
)

const (
	// chunk is how much is read at a time on the way back from the end of a file.
	chunk = 64 << 10
	// maxLine bounds what counts as one line of a tail, with all its partial entries: the last line of a log
	// must not be a gigabyte.
	maxLine = 1 << 20
	// headerSize is enough for time, stream and tags of an entry.
	headerSize = 128
)

// position is where printing begins: with the line at offset or, within it, with the text at cut.
type position struct {
	offset int64
	cut    int64 // 0: the line is printed from its beginning
}

// resume sets a cursor to the position.
func (p position) resume(at *cursor) error {
	if p.cut == 0 {
		_, err := at.file.Seek(p.offset, io.SeekStart)
		return err
	}

	header, err := headerAt(at.file, p.offset)
	at.lines = splitter{open: true, header: header, unknown: err != nil}
	_, err = at.file.Seek(p.cut, io.SeekStart)
	return err
}

// headerAt reads what the line at offset begins with.
func headerAt(f io.ReaderAt, offset int64) (entry, error) {
	buffer := make([]byte, headerSize)
	n, err := f.ReadAt(buffer, offset)
	if n == 0 {
		return entry{}, err
	}
	line, _, _ := bytes.Cut(buffer[:n], []byte("\n"))
	e, err := parseEntry(line)
	e.text = nil
	return e, err
}

// tailOffset returns where the last lines of the first end bytes of a file begin, as many as are wanted, and
// how many of them there are. Entries that go on (tag P) belong to the line that they begin, up to maxLine
// bytes. It reads backwards and holds one chunk.
func tailOffset(ctx context.Context, f io.ReaderAt, end, want int64) (from position, found int64, err error) {
	b := backwards{f: f, at: end, chunkAt: end}
	if end == 0 {
		return position{}, 0, nil
	}

	// size is how much of the present line has been seen. It begins as that of a full line, so that the last
	// one of the file counts whatever it is.
	size := int64(maxLine)
	for b.at > 0 && ctx.Err() == nil {
		stop := b.at
		start, err := b.line()
		if err != nil {
			return position{}, 0, fmt.Errorf("read log: %w", err)
		}
		if e, err := headerAt(f, start); err != nil || !e.partial {
			size = maxLine
		}

		for at := stop; at > start; {
			if size >= maxLine {
				if found == want {
					return between(start, at, stop), found, nil
				}

				found, size = found+1, 0
			}

			step := min(at-start, maxLine-size)
			at, size = at-step, size+step
		}
	}

	return position{}, found, ctx.Err()
}

// between returns the position of at, which is in a line from start to stop: at its end where the next
// begins, or within its text. A position within its header is that of its beginning.
func between(start, at, stop int64) position {
	switch {
	case at == stop:
		return position{offset: stop}
	case at < start+headerSize:
		return position{offset: start}
	}
	return position{offset: start, cut: at}
}

// backwards finds the beginnings of lines from the end of a file on.
type backwards struct {
	f       io.ReaderAt
	at      int64 // end of the line that is looked for, with its line end
	chunk   []byte
	chunkAt int64 // where chunk begins
}

// line returns where the line that ends at b.at begins, and makes that the end of the next.
func (b *backwards) line() (start int64, err error) {
	// The line end itself is left out.
	at := b.at - 1
	for at > 0 {
		if at <= b.chunkAt {
			if err := b.load(at); err != nil {
				return 0, err
			}
		}

		if i := bytes.LastIndexByte(b.chunk[:at-b.chunkAt], '\n'); i >= 0 {
			b.at = b.chunkAt + int64(i) + 1
			return b.at, nil
		}

		at = b.chunkAt
	}

	b.at = 0
	return 0, nil
}

// load reads the chunk before end.
func (b *backwards) load(end int64) error {
	n := min(chunk, end)
	if b.chunk == nil {
		b.chunk = make([]byte, chunk)
	}
	b.chunk, b.chunkAt = b.chunk[:n], end-n
	_, err := b.f.ReadAt(b.chunk, b.chunkAt)
	return err
}

// counter counts whole lines as tailOffset does.
type counter struct {
	lines int64
	size  int
}

func (c *counter) add(e entry) error {
	c.size += len(e.text)
	if !e.partial || c.size >= maxLine {
		c.lines, c.size = c.lines+1, 0
	}
	return nil
}
