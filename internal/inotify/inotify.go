// Package inotify opens watchers of files on a machine that may have none left: the kernel counts them for
// each user, and by default 128 are all that root has, whatever container or node of the machine uses them.
package inotify

import (
	"context"
	"errors"
	"log/slog"
	"syscall"
	"time"

	"github.com/fsnotify/fsnotify"
)

// again is how long after the last look, and the last attempt, the next one follows.
const again = time.Second

// Open returns a watcher that watches nothing yet. As long as the kernel has none to give, look is called
// every second in place of it: what is to be watched is then seen late, but it is seen. Open fails when ctx
// ends, and when the kernel has another reason.
func Open(ctx context.Context, log *slog.Logger, look func()) (*fsnotify.Watcher, error) {
	return open(ctx, log, look, again, fsnotify.NewWatcher)
}

func open(
	ctx context.Context,
	log *slog.Logger,
	look func(),
	pause time.Duration,
	attempt func() (*fsnotify.Watcher, error),
) (*fsnotify.Watcher, error) {
	warned := false
	for {
		watcher, err := attempt()
		if err == nil || !UsedUp(err) {
			return watcher, err
		}

		if !warned {
			log.Warn("files are looked at every second, as the kernel has no inotify instance left",
				"sysctl", "fs.inotify.max_user_instances", "err", err)
			warned = true
		}

		look()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// UsedUp reports whether there is no watcher because others have not given theirs back.
func UsedUp(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
}
