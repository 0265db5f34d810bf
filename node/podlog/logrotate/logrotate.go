// Package logrotate keeps the logs of containers from filling the disk. A log that has grown beyond a size is
// renamed, and the runtime is made to open a new one (CRI's ReopenContainerLog). Older files are compressed,
// and the oldest are removed.
//
// A log that grows so fast that it would be too large before the next look is looked at sooner, other than in
// kubelet: each file of a container that writes 100 MB a second would be a gigabyte. Nothing else is, so that
// a node whose containers write little pays for one look in the period.
package logrotate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/runtime"
)

// Runtime is what the rotation needs of the container runtime (runtime.Client).
type Runtime interface {
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
	ContainerStatus(ctx context.Context, id string) (runtime.Status, error)
	// ReopenLog makes the runtime go on with a container's log in a new file of the same name.
	ReopenLog(ctx context.Context, id string) error
}

// Config says when logs are rotated. The defaults are kubelet's.
type Config struct {
	MaxSize  int64         // in bytes; 0: 10 MiB
	MaxFiles int           // of a container, the current one included, at least 2; 0: 5
	Workers  int           // rotations, and compressions, at the same time; 0: 1
	Every    time.Duration // between checks; 0: 10 s
	Runtime  Runtime
	Log      *slog.Logger
}

// Rotator rotates the logs of all containers.
type Rotator struct {
	cfg Config

	// running are the rotations and compressions that run; rotations and compressions bound them.
	running      sync.WaitGroup
	rotations    chan struct{}
	compressions chan struct{}

	// failed is the error of the last look.
	failed lastError

	// mu guards what follows, and what is in it.
	mu sync.Mutex
	// logs are those of running containers, by ID.
	logs map[string]*containerLog
}

// containerLog is the log of a running container.
type containerLog struct {
	id   string
	path string // it does not change

	// size is that of the file at the last look, at the time looked.
	size   int64
	looked time.Time

	// due is when a log that grows fast is looked at again; zero: with all others.
	due time.Time

	// rotating and compressing mean that a goroutine does that; uncompressed that older files wait for it.
	rotating     bool
	compressing  bool
	uncompressed bool

	// The errors of the last rotation and the last compression.
	notRotated    lastError
	notCompressed lastError
}

// New returns a rotator.
func New(cfg Config) (*Rotator, error) {
	cfg.MaxSize = cmp.Or(cfg.MaxSize, 10<<20)
	cfg.MaxFiles = cmp.Or(cfg.MaxFiles, 5)
	cfg.Workers = cmp.Or(cfg.Workers, 1)
	cfg.Every = cmp.Or(cfg.Every, 10*time.Second)
	if cfg.MaxFiles < 2 {
		return nil, fmt.Errorf("containerLogMaxFiles %d: must be at least 2", cfg.MaxFiles)
	}

	return &Rotator{
		cfg:          cfg,
		rotations:    make(chan struct{}, cfg.Workers),
		compressions: make(chan struct{}, cfg.Workers),
		logs:         map[string]*containerLog{},
	}, nil
}

// Run checks the logs of running containers until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	defer r.running.Wait()

	all := time.Now().Add(r.cfg.Every)
	for retry.Sleep(ctx, time.Until(r.next(all))) == nil {
		now := time.Now()
		if now.Before(all) {
			r.check(ctx, now, false)
			continue
		}

		r.say(ctx, r.list(ctx))
		r.check(ctx, now, true)
		all = now.Add(r.cfg.Every)
	}

	return nil
}

// say logs the error of a list, once.
func (r *Rotator) say(ctx context.Context, err error) {
	if ctx.Err() == nil {
		r.failed.report(r.cfg.Log, err, "rotation of logs")
	}
}

// lastError is an error that is said once, as long as it is the same, and once when it is over.
type lastError string

func (l *lastError) report(log *slog.Logger, err error, what string, args ...any) {
	text := ""
	if err != nil {
		text = err.Error()
	}

	// A full disk is one error, whatever file it is that has no room.
	if errno, ok := errors.AsType[unix.Errno](err); ok {
		text = errno.Error()
	}

	switch {
	case text == string(*l):
	case err != nil:
		log.Warn("logs are not kept small", append(args, "failed", what, "err", err)...)
	default:
		log.Info("logs are kept small again", append(args, "works", what)...)
	}

	*l = lastError(text)
}

// next returns when the next look is due: all is when it is due for all logs.
func (r *Rotator) next(all time.Time) time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.logs {
		if !l.due.IsZero() && l.due.Before(all) {
			all = l.due
		}
	}
	return all
}

// list finds the logs of the containers that run.
func (r *Rotator) list(ctx context.Context) error {
	containers, err := r.cfg.Runtime.Containers(ctx, runtime.Selection{Running: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}

	r.mu.Lock()
	known := r.logs
	r.mu.Unlock()

	logs := make(map[string]*containerLog, len(containers))
	for _, c := range containers {
		l := known[c.ID]
		if l == nil {
			// One that has no log yet, or is gone, is asked about again at the next look.
			status, err := r.cfg.Runtime.ContainerStatus(ctx, c.ID)
			if err != nil || status.LogPath == "" {
				continue
			}

			l = &containerLog{id: c.ID, path: status.LogPath}
		}

		logs[c.ID] = l
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.logs = logs
	return nil
}

// check looks at the logs, or only at those that grow fast and are due, and begins the work on them.
func (r *Rotator) check(ctx context.Context, now time.Time, all bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	for _, l := range r.logs {
		if !all && (l.due.IsZero() || l.due.After(now)) {
			continue
		}

		info, err := os.Stat(l.path)
		missing := errors.Is(err, fs.ErrNotExist)
		if err != nil && !missing {
			continue
		}

		size := int64(0)
		if !missing {
			size = info.Size()
		}

		l.pace(r.cfg, size, now)
		if missing || size >= r.cfg.MaxSize {
			r.beginRotation(ctx, l)
		} else if l.uncompressed {
			r.beginCompression(ctx, l)
		}
	}
}

// pace takes the size of a log, and sets when it is looked at again.
func (l *containerLog) pace(cfg Config, size int64, now time.Time) {
	wait := cfg.Every
	if !l.looked.IsZero() {
		wait = untilFull(cfg, size, size-l.size, now.Sub(l.looked))
	}

	l.size = size
	l.looked = now
	l.due = time.Time{}
	if wait < cfg.Every {
		l.due = now.Add(wait)
	}
}

// soonest is how soon a log is looked at again at the earliest: names of rotated files have whole seconds.
const soonest = time.Second

// untilFull returns when a log is looked at again that has grown by so many bytes in a time, if it goes on
// so: when it is too large, or after the usual period.
func untilFull(cfg Config, size, grown int64, in time.Duration) time.Duration {
	if grown <= 0 || in <= 0 {
		return cfg.Every
	}

	left := cfg.MaxSize - size
	if left <= 0 {
		// It is rotated now.
		left = cfg.MaxSize
	}

	seconds := float64(left) / (float64(grown) / in.Seconds())
	if seconds >= cfg.Every.Seconds() {
		return cfg.Every
	}

	return max(time.Duration(seconds*float64(time.Second)), min(soonest, cfg.Every))
}
