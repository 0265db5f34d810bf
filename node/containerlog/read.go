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

// Options are what of a log is wanted.
type Options struct {
	Tail       int64     // the last lines only; negative: all
	Since      time.Time // entries at or after it; zero: all
	Timestamps bool      // each line begins with its time
	LimitBytes int64     // at most so many bytes; 0: no limit
	Stream     string    // stdout or stderr; empty: both
	Follow     bool      // go on until the container has ended
	// Running reports whether the container still runs; asked while following. Nil: it does not.
	Running func(ctx context.Context) (bool, error)
}

// stamp is RFC 3339 with nanoseconds of fixed width, as kubectl users know it.
const stamp = "2006-01-02T15:04:05.000000000Z07:00"

// Read writes the log at path to w. It returns nil at the end of the log or at the limit, and when ctx ends
// while following. However long lines are, it holds but a piece of one.
func Read(ctx context.Context, path string, o Options, w io.Writer) error {
	out := &printer{w: bufio.NewWriterSize(w, maxPiece), o: o, left: o.LimitBytes}
	if o.LimitBytes == 0 {
		out.left = -1
	}

	f, err := boundedfile.Open(path, os.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}

	err = out.all(ctx, path, f)
	if errors.Is(err, errLimit) || (o.Follow && ctx.Err() != nil) {
		err = nil
	}

	return errors.Join(err, out.w.Flush())
}

var errLimit = errors.New("limit reached")

// printer writes entries as the caller wants them.
type printer struct {
	w    *bufio.Writer
	o    Options
	left int64 // bytes; negative: no limit
	mid  bool  // the last entry written was partial
}

// all prints rotated files first, as far as they are wanted, then the current one, then what is added to it.
func (p *printer) all(ctx context.Context, path string, f *os.File) error {
	current := f
	defer func() { current.Close() }()

	lines := &splitter{}
	if p.o.Tail == 0 {
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	} else if err := p.history(ctx, path, f, lines); err != nil {
		return err
	}

	if !p.o.Follow {
		return p.copy(ctx, f, lines, p.entry)
	}

	// which exchanges the file when the log is rotated
	return p.follow(ctx, path, &current, lines)
}

// history prints of the rotated files what is wanted and leaves f and lines where printing goes on.
func (p *printer) history(ctx context.Context, path string, f *os.File, lines *splitter) error {
	rotated, err := Rotated(path)
	if err != nil {
		return err
	}
	if p.o.Tail < 0 {
		return p.older(ctx, rotated, 0)
	}

	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return fmt.Errorf("read log: %w", err)
	}

	from, found, err := tailOffset(ctx, f, end, p.o.Tail)
	if err != nil {
		return err
	}

	if found < p.o.Tail && p.o.Stream == "" {
		if err := p.older(ctx, rotated, p.o.Tail-found); err != nil {
			return err
		}
	}

	return from.resume(f, lines)
}

// older prints rotated files, oldest first; of their lines the last ones only if tail is not 0.
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
		err := p.file(ctx, name, func(e Entry) error {
			if passed.lines < skip {
				return passed.add(e)
			}

			return p.entry(e)
		})
		if err != nil {
			return err
		}
	}

	return nil
}

// file hands on the entries of a rotated file.
func (p *printer) file(ctx context.Context, name string, emit func(Entry) error) error {
	f, err := open(name)
	if errors.Is(err, fs.ErrNotExist) {
		// rotated away meanwhile
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	return p.copy(ctx, f, &splitter{}, emit)
}

// copy hands on all entries of r, and the last one though it has no line end.
func (p *printer) copy(ctx context.Context, r io.Reader, lines *splitter, emit func(Entry) error) error {
	if err := p.drain(ctx, r, lines, emit); err != nil {
		return err
	}
	return lines.finish(emit)
}

// drain hands on the entries that are complete at the end of r.
func (p *printer) drain(ctx context.Context, r io.Reader, lines *splitter, emit func(Entry) error) error {
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

// entry prints one entry.
func (p *printer) entry(e Entry) error {
	if (p.o.Stream != "" && e.Stream != p.o.Stream) || e.Time.Before(p.o.Since) {
		return nil
	}

	if p.o.Timestamps && !p.mid {
		if err := p.put(append(e.Time.AppendFormat(nil, stamp), ' ')); err != nil {
			return err
		}
	}

	if err := p.put(e.Text); err != nil {
		return err
	}

	p.mid = e.Partial
	if e.Partial {
		return nil
	}

	return p.put([]byte("\n"))
}

// put writes text, up to the limit.
func (p *printer) put(text []byte) error {
	if p.left >= 0 && int64(len(text)) >= p.left {
		text = text[:p.left]
		p.left = 0
		if _, err := p.w.Write(text); err != nil {
			return err
		}

		return errLimit
	}

	if p.left > 0 {
		p.left -= int64(len(text))
	}

	_, err := p.w.Write(text)
	return err
}
