package containerlog

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Options are what of a log is wanted.
type Options struct {
	Tail       int64     // the last lines only; negative: all
	Since      time.Time // entries at or after it; zero: all
	Timestamps bool      // each line begins with its time
	LimitBytes int64     // at most so many bytes; 0: no limit
	Stream     string    // stdout or stderr; empty: both
	Follow     bool      // go on until the container has ended
	// Running tells whether the container still runs; asked while following. Nil: it does not.
	Running func(ctx context.Context) (bool, error)
}

// stamp is RFC 3339 with nanoseconds of fixed width, as kubectl users know it.
const stamp = "2006-01-02T15:04:05.000000000Z07:00"

// Read writes the log at path to w. It returns nil at the end of the log or at the limit, and when ctx ends while following.
func Read(ctx context.Context, path string, o Options, w io.Writer) error {
	out := &printer{w: w, o: o, left: o.LimitBytes}
	if o.LimitBytes == 0 {
		out.left = -1
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	err = out.all(ctx, path, f)
	if errors.Is(err, errLimit) || (o.Follow && ctx.Err() != nil) {
		return nil
	}
	return err
}

var errLimit = errors.New("limit reached")

// printer writes entries as the caller wants them.
type printer struct {
	w    io.Writer
	o    Options
	left int64 // bytes; negative: no limit
	mid  bool  // the last entry written was partial
}

// all prints rotated files first, as far as they are wanted, then the current one, then what is added to it.
func (p *printer) all(ctx context.Context, path string, f *os.File) error {
	defer func() { f.Close() }()
	if p.o.Tail == 0 {
		if _, err := f.Seek(0, io.SeekEnd); err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	} else if err := p.history(ctx, path, f); err != nil {
		return err
	}
	if !p.o.Follow {
		return p.rest(ctx, f)
	}
	// follow owns f from here on: it exchanges it when the log is rotated.
	current := f
	err := p.follow(ctx, path, &current)
	f = current
	return err
}

// history prints of the rotated files what is wanted and leaves f where printing goes on.
func (p *printer) history(ctx context.Context, path string, f *os.File) error {
	rotated, err := Rotated(path)
	if err != nil {
		return err
	}
	if p.o.Tail < 0 {
		return p.older(ctx, rotated, 0)
	}
	offset, found, err := tailOffset(f, p.o.Tail)
	if err != nil {
		return err
	}
	if found < p.o.Tail && p.o.Stream == "" {
		if err := p.older(ctx, rotated, p.o.Tail-found); err != nil {
			return err
		}
	}
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return fmt.Errorf("read log: %w", err)
	}
	return nil
}

// older prints rotated files, oldest first; of their lines the last ones only if tail is not 0.
func (p *printer) older(ctx context.Context, files []string, tail int64) error {
	skip := int64(0)
	if tail > 0 {
		var total int64
		for _, name := range files {
			n, err := countLines(name)
			if err != nil {
				return err
			}
			total += n
		}
		skip = max(total-tail, 0)
	}
	for _, name := range files {
		f, err := open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // rotated away meanwhile
		}
		if err != nil {
			return err
		}
		r := bufio.NewReader(f)
		for ; skip > 0 && err == nil; skip-- {
			err = skipLine(r)
		}
		if err == nil {
			err = p.copy(ctx, r)
		}
		f.Close()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if err != nil {
			skip++ // the line that was not there
		}
	}
	return nil
}

// rest prints what is left of f.
func (p *printer) rest(ctx context.Context, f io.Reader) error {
	return p.copy(ctx, bufio.NewReader(f))
}

// copy prints all complete lines of r, and the last one though it has no line end.
func (p *printer) copy(ctx context.Context, r *bufio.Reader) error {
	for ctx.Err() == nil {
		line, err := r.ReadBytes('\n')
		if len(line) > 0 {
			if err := p.line(bytes.TrimSuffix(line, []byte("\n"))); err != nil {
				return err
			}
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

// line prints one line of the file. A line that is not in the format (torn by a crash) is left out.
func (p *printer) line(raw []byte) error {
	e, err := ParseEntry(raw)
	if err != nil {
		return nil //nolint:nilerr // nothing can be said about it
	}
	if (p.o.Stream != "" && e.Stream != p.o.Stream) || e.Time.Before(p.o.Since) {
		return nil
	}
	var b []byte
	if p.o.Timestamps && !p.mid {
		b = append(e.Time.AppendFormat(b, stamp), ' ')
	}
	b = append(b, e.Text...)
	if !e.Partial {
		b = append(b, '\n')
	}
	p.mid = e.Partial
	if p.left >= 0 && int64(len(b)) >= p.left {
		b, p.left = b[:p.left], 0
		if _, err := p.w.Write(b); err != nil {
			return err
		}
		return errLimit
	}
	if p.left > 0 {
		p.left -= int64(len(b))
	}
	_, err = p.w.Write(b)
	return err
}

// Rotated lists the rotated files of a log, oldest first: PATH.20060102-150405, some of them with .gz.
func Rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("list rotated logs: %w", err)
	}
	byTime := map[string]string{} // a file and its half-written or finished .gz count once
	for _, e := range entries {
		at, ok := strings.CutPrefix(e.Name(), filepath.Base(path)+".")
		if !ok {
			continue
		}
		at = strings.TrimSuffix(at, ".gz")
		if _, err := time.Parse("20060102-150405", at); err != nil {
			continue
		}
		if old, ok := byTime[at]; !ok || strings.HasSuffix(old, ".gz") {
			byTime[at] = filepath.Join(filepath.Dir(path), e.Name())
		}
	}
	var out []string
	for _, name := range byTime {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}

type reader struct {
	io.Reader
	file *os.File
}

func (r reader) Close() error { return r.file.Close() }

func open(name string) (io.ReadCloser, error) {
	f, err := os.Open(name)
	if err != nil || !strings.HasSuffix(name, ".gz") {
		return f, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("read rotated log %s: %w", name, err)
	}
	return reader{z, f}, nil
}
