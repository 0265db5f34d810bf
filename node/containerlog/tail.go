package containerlog

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
)

const (
	// chunk is how much is read at a time on the way back from the end of a file.
	chunk = 64 << 10
	// maxLine bounds what counts as one line of a tail, with all its partial entries: who asks for the last
	// line shall not get a gigabyte.
	maxLine = 1 << 20
	// headerSize is enough for time, stream and tags of an entry.
	headerSize = 128
)

// position is where printing begins: with the line at offset, or with what of its text follows cut.
type position struct {
	offset int64
	cut    int64 // 0: the line is printed from its beginning
}

// resume sets the file, and the splitter, to the position.
func (p position) resume(f *os.File, lines *splitter) error {
	if p.cut == 0 {
		_, err := f.Seek(p.offset, io.SeekStart)
		return err
	}
	header, err := headerAt(f, p.offset)
	lines.open, lines.header, lines.unknown = true, header, err != nil
	_, err = f.Seek(p.cut, io.SeekStart)
	return err
}

// headerAt reads what the line at offset begins with.
func headerAt(f io.ReaderAt, offset int64) (Entry, error) {
	buffer := make([]byte, headerSize)
	n, err := f.ReadAt(buffer, offset)
	if n == 0 {
		return Entry{}, err
	}
	line, _, _ := bytes.Cut(buffer[:n], []byte("\n"))
	e, err := ParseEntry(line)
	e.Text = nil
	return e, err
}

// tailOffset finds where the last want whole lines of the first end bytes begin, and how many there are (want
// at most). Entries that go on (tag P) belong to the line that they begin, up to maxLine bytes. It reads
// backwards and holds one chunk.
func tailOffset(ctx context.Context, f io.ReaderAt, end, want int64) (from position, found int64, err error) {
	b := backwards{f: f, at: end, chunkAt: end}
	if end == 0 {
		return position{}, 0, nil
	}

	// of what was seen of the present line; the last one of the file always counts
	size := int64(maxLine)
	for b.at > 0 && ctx.Err() == nil {
		stop := b.at
		start, err := b.line()
		if err != nil {
			return position{}, 0, fmt.Errorf("read log: %w", err)
		}
		if e, err := headerAt(f, start); err != nil || !e.Partial {
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

// between is the position at of a line from start to stop: where the next begins, within the text, or at the
// beginning of the line rather than within its header.
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
	// not the line end itself
	for at := b.at - 1; ; {
		if at <= 0 {
			b.at = 0
			return 0, nil
		}

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

func (c *counter) add(e Entry) error {
	c.size += len(e.Text)
	if !e.Partial || c.size >= maxLine {
		c.lines, c.size = c.lines+1, 0
	}
	return nil
}
