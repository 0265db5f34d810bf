package containerlog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// askRunning is how often an idle follower asks whether the container still runs: an exit writes nothing to the log.
const askRunning = 500 * time.Millisecond

// follow prints what is there and what comes, until the container has ended. current is exchanged when the log is rotated.
func (p *printer) follow(ctx context.Context, path string, current **os.File) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("follow log: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return fmt.Errorf("follow log %s: %w", path, err)
	}
	idle := time.NewTicker(askRunning)
	defer idle.Stop()
	var pending []byte // the beginning of a line that is still being written
	ended, unknown := false, error(nil)
	for {
		if pending, err = p.drain(ctx, *current, pending); err != nil {
			return err
		}
		if !sameFile(*current, path) {
			fresh, err := reopen(path)
			if err != nil {
				return err
			}
			if fresh != nil {
				// The runtime writes to the new file by now: what the old one got last is complete.
				_, err = p.drain(ctx, *current, pending)
				(*current).Close()
				*current, pending = fresh, nil
				if err != nil {
					return err
				}
				continue
			}
		}
		if ended {
			return unknown
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-watcher.Events:
		case <-watcher.Errors: // lost events: look
		case <-idle.C:
			running, err := p.running(ctx)
			ended, unknown = !running || err != nil, err // what it wrote last is still to be read
		}
	}
}

func (p *printer) running(ctx context.Context) (bool, error) {
	if p.o.Running == nil {
		return false, nil
	}
	return p.o.Running(ctx)
}

// drain prints the complete lines up to the end of the file and returns what follows them.
func (p *printer) drain(ctx context.Context, f *os.File, pending []byte) ([]byte, error) {
	buffer := make([]byte, 32<<10)
	for ctx.Err() == nil {
		n, err := f.Read(buffer)
		pending = append(pending, buffer[:n]...)
		for {
			i := bytes.IndexByte(pending, '\n')
			if i < 0 {
				break
			}
			if err := p.line(pending[:i]); err != nil {
				return nil, err
			}
			pending = pending[i+1:]
		}
		if errors.Is(err, io.EOF) {
			return bytes.Clone(pending), nil
		}
		if err != nil {
			return nil, fmt.Errorf("read log: %w", err)
		}
	}
	return nil, ctx.Err()
}

// reopen opens the log that took the place of a rotated one. Between the two there may be none for a moment: nil.
func reopen(path string) (*os.File, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}
