package containerlog

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// Options say what of a log is wanted. The zero value wants nothing: Tail is 0.
type Options struct {
	// Tail wants the last lines only; a negative number wants all.
	Tail int64
	// Since wants entries at or after it. Its zero value wants all.
	Since time.Time
	// Timestamps writes before each line when it was written.
	Timestamps bool
	// LimitBytes is after how many bytes of output reading ends; 0: never.
	LimitBytes int64
	// Stream wants stdout or stderr; empty: both.
	Stream string
	// Follow goes on until the container has ended.
	Follow bool
	// Running reports whether the container may still write. It is called while following; nil means it may
	// not.
	Running func(ctx context.Context) (bool, error)
}

// stamp is RFC 3339 with nanoseconds of fixed width, as kubectl users know it.
const stamp = "2006-01-02T15:04:05.000000000Z07:00"

// Read writes the log at path to w. It returns nil at the end of the log, at the limit, and when ctx ends
// while following. It never holds more than a piece of a line in memory, however long lines are.
func Read(ctx context.Context, path string, o Options, w io.Writer) error {
	file, err := boundedfile.Open(path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}

	at := &cursor{path: path, file: file}
	defer at.close()

	out := &printer{w: bufio.NewWriterSize(w, maxPiece), o: o, left: o.LimitBytes}
	if o.LimitBytes == 0 {
		out.left = -1
	}

	err = out.all(ctx, at)
	if errors.Is(err, errLimit) || o.Follow && ctx.Err() != nil {
		err = nil
	}

	return errors.Join(err, out.w.Flush())
}

// cursor is where reading of a log stands. The file is another one after a rotation.
type cursor struct {
	path  string
	file  *os.File
	lines splitter
}

func (c *cursor) close() { c.file.Close() }

var errLimit = errors.New("limit reached")

// printer writes entries as the caller wants them.
type printer struct {
	w    *bufio.Writer
	o    Options
	left int64 // bytes; negative: no limit
	mid  bool  // the last entry written was partial
}

// all prints rotated files first, as far as they are wanted, then the current one, then what is added to it.
func (p *printer) all(ctx context.Context, at *cursor) error {
	if err := p.seek(ctx, at); err != nil {
		return err
	}
	if p.o.Follow {
		return p.follow(ctx, at)
	}
	return p.copy(ctx, at.file, &at.lines, p.print)
}

// seek prints what is wanted of the rotated files, and sets the cursor to where printing goes on.
func (p *printer) seek(ctx context.Context, at *cursor) error {
	if p.o.Tail == 0 {
		if _, err := at.file.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("read log: %w", err)
		}

		return nil
	}

	rotated, err := Rotated(at.path)
	if err != nil {
		return err
	}
	if p.o.Tail < 0 {
		return p.older(ctx, rotated, 0)
	}

	// The last lines are looked for from the end of the newest file, and the rest of them in older ones. How
	// many lines of one stream those have is not known without reading them, so they are left out then.
	end, err := at.file.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}

	from, found, err := tailOffset(ctx, at.file, end, p.o.Tail)
	if err != nil {
		return err
	}

	if found < p.o.Tail && p.o.Stream == "" {
		if err := p.older(ctx, rotated, p.o.Tail-found); err != nil {
			return err
		}
	}

	return from.resume(at)
}

// older prints rotated files, the oldest first, and of their lines only the last ones if tail is not 0.
func (p *printer) older(ctx context.Context, files []string, tail int64) error {
	skip := int64(0)
	if tail > 0 {
		var total counter
		for _, name := range files {
			if err := p.file(ctx, name, total.add); err != nil {
				return err
			}
		}

		skip = total.lines - tail
	}

	var passed counter
	for _, name := range files {
		err := p.file(ctx, name, func(e entry) error {
			if passed.lines < skip {
				return passed.add(e)
			}

			return p.print(e)
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// file emits the entries of a rotated file.
func (p *printer) file(ctx context.Context, name string, emit func(entry) error) error {
	f, err := open(name)
	if errors.Is(err, fs.ErrNotExist) {
		// It has been removed since it was listed.
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()

	return p.copy(ctx, f, &splitter{}, emit)
}

// copy emits all entries of r, the last one even if it has no line end.
func (p *printer) copy(ctx context.Context, r io.Reader, lines *splitter, emit func(entry) error) error {
	if err := p.drain(ctx, r, lines, emit); err != nil {
		return err
	}
	return lines.finish(emit)
}

// drain emits the entries that are complete at the end of r.
func (p *printer) drain(ctx context.Context, r io.Reader, lines *splitter, emit func(entry) error) error {
	block := make([]byte, 32<<10)
	for ctx.Err() == nil {
		n, err := r.Read(block)
		if err := lines.feed(block[:n], emit); err != nil {
			return err
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}

	return ctx.Err()
}

// print prints one entry, if it is wanted.
func (p *printer) print(e entry) error {
	if p.o.Stream != "" && e.stream != p.o.Stream || e.time.Before(p.o.Since) {
		return nil
	}

	if p.o.Timestamps && !p.mid {
		if err := p.put(append(e.time.AppendFormat(nil, stamp), ' ')); err != nil {
			return err
		}
	}

	if err := p.put(e.text); err != nil {
		return err
	}

	p.mid = e.partial
	if e.partial {
		return nil
	}

	return p.put([]byte("\n"))
}

// put writes text, up to the limit.
func (p *printer) put(text []byte) error {
	reached := p.left >= 0 && int64(len(text)) >= p.left
	if reached {
		text = text[:p.left]
	}
	if p.left >= 0 {
		p.left -= int64(len(text))
	}

	if _, err := p.w.Write(text); err != nil {
		return err
	}
	if reached {
		return errLimit
	}

	return nil
}
