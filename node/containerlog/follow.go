package containerlog

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/trivet-node/trivet/internal/boundedfile"
)

// askRunning is how often an idle follower asks whether the container still runs: an exit writes nothing to
// the log.
const askRunning = 500 * time.Millisecond

// follow prints what is there and what comes, until the container has ended. current is exchanged when the
// log is rotated.
func (p *printer) follow(ctx context.Context, path string, current **os.File, lines *splitter) error {
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

	ended, unknown := false, error(nil)
	for {
		if err := p.drain(ctx, *current, lines, p.entry); err != nil {
			return err
		}

		if !sameFile(*current, path) {
			fresh, err := reopen(path)
			if err != nil {
				return err
			}

			if fresh != nil {
				// The runtime writes to the new file by now: what the old one got last is complete.
				err = p.drain(ctx, *current, lines, p.entry)
				(*current).Close()
				*current, *lines = fresh, splitter{}
				if err != nil {
					return err
				}

				continue
			}
		}

		if ended {
			return unknown
		}

		// Nothing more is there: what there was is shown now.
		if err := p.w.Flush(); err != nil {
			return err
		}

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-watcher.Events:
		// lost events: look
		case <-watcher.Errors:
		case <-idle.C:
			running, err := p.running(ctx)

			// what it wrote last is still to be read
			ended, unknown = !running || err != nil, err
		}
	}
}

func (p *printer) running(ctx context.Context) (bool, error) {
	if p.o.Running == nil {
		return false, nil
	}
	return p.o.Running(ctx)
}

// reopen opens the log that took the place of a rotated one. Between the two there may be none for a moment:
// nil.
func reopen(path string) (*os.File, error) {
	f, err := boundedfile.Open(path, os.O_RDONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	return f, nil
}

// sameFile reports whether path still names f.
func sameFile(f *os.File, path string) bool {
	a, err := f.Stat()
	if err != nil {
		return false
	}
	b, err := os.Lstat(path)
	return err == nil && os.SameFile(a, b)
}
