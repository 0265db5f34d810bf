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
	"github.com/trivet-node/trivet/internal/inotify"
)

// pollRunning is how often an idle follower asks whether the container still runs: an exit writes nothing to
// the log. A follower for which the kernel has no inotify instance left reads the log as often.
const pollRunning = 500 * time.Millisecond

// follow prints what there is and what is added, until the container has ended.
func (p *printer) follow(ctx context.Context, at *cursor) error {
	var changes <-chan fsnotify.Event
	var failures <-chan error
	watcher, err := watch(filepath.Dir(at.path))
	switch {
	case err == nil:
		defer watcher.Close()
		changes, failures = watcher.Events, watcher.Errors
	case !inotify.UsedUp(err):
		return fmt.Errorf("follow log %s: %w", at.path, err)
	}

	idle := time.NewTicker(pollRunning)
	defer idle.Stop()

	var failure error
	ended := false
	for {
		if err := p.catchUp(ctx, at); err != nil {
			return err
		}
		if ended {
			return failure
		}

		// Nothing more is there, so what there was is shown now.
		if err := p.w.Flush(); err != nil {
			return err
		}

		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changes:

		// Whatever the error is: events may be lost, so there may be more to read.
		case _, open := <-failures:
			if !open {
				return fmt.Errorf("follow log %s: the watch has ended", at.path)
			}

		case <-idle.C:
			// What the container wrote last is read before following ends.
			running, err := p.running(ctx)
			ended, failure = !running || err != nil, err
		}
	}
}

func watch(dir string) (*fsnotify.Watcher, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, err
	}
	if err := watcher.Add(dir); err != nil {
		watcher.Close()
		return nil, err
	}
	return watcher, nil
}

// catchUp prints what has been added, and goes on with the next file when the log has been rotated.
func (p *printer) catchUp(ctx context.Context, at *cursor) error {
	for {
		if err := p.drain(ctx, at.file, &at.lines, p.print); err != nil {
			return err
		}
		if sameFile(at.file, at.path) {
			return nil
		}

		next, err := reopen(at.path)
		if next == nil || err != nil {
			return err
		}

		// The runtime writes to the next file by now: what it wrote last to this one is complete.
		err = p.drain(ctx, at.file, &at.lines, p.print)
		at.file.Close()
		at.file, at.lines = next, splitter{}
		if err != nil {
			return err
		}
	}
}

func (p *printer) running(ctx context.Context) (bool, error) {
	if p.o.Running == nil {
		return false, nil
	}
	return p.o.Running(ctx)
}

// reopen opens the log that took the place of a rotated one. It returns nil while there is none.
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
