// Package logrotate keeps the logs of containers from filling the disk. A log that has grown beyond a size is
// renamed, and the runtime is made to open a new one (CRI's ReopenContainerLog). Older files are compressed,
// and the oldest are removed.
package logrotate

import (
	"cmp"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/podlog/containerlog"
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
	Every    time.Duration // between checks; 0: 10 s
	Runtime  Runtime
	Log      *slog.Logger
}

// Rotator rotates the logs of all containers.
type Rotator struct {
	cfg Config
	// paths are the logs of running containers, by ID. The path of a log does not change.
	paths map[string]string
}

// New returns a rotator.
func New(cfg Config) (*Rotator, error) {
	cfg.MaxSize = cmp.Or(cfg.MaxSize, 10<<20)
	cfg.MaxFiles = cmp.Or(cfg.MaxFiles, 5)
	cfg.Every = cmp.Or(cfg.Every, 10*time.Second)
	if cfg.MaxFiles < 2 {
		return nil, fmt.Errorf("containerLogMaxFiles %d: must be at least 2", cfg.MaxFiles)
	}
	return &Rotator{cfg: cfg, paths: map[string]string{}}, nil
}

// Run checks the logs of running containers periodically until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := r.check(ctx); err != nil && ctx.Err() == nil {
				r.cfg.Log.Warn("logs are not rotated", "err", err)
			}
		}
	}
}

// check rotates the logs that are too large.
func (r *Rotator) check(ctx context.Context) error {
	containers, err := r.cfg.Runtime.Containers(ctx, runtime.Selection{Running: true})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}

	running := map[string]bool{}
	var errs []error
	for _, c := range containers {
		running[c.ID] = true
		errs = append(errs, r.checkOne(ctx, c.ID))
	}

	maps.DeleteFunc(r.paths, func(id, _ string) bool { return !running[id] })
	return errors.Join(errs...)
}

func (r *Rotator) checkOne(ctx context.Context, id string) error {
	path := r.path(ctx, id)
	if path == "" {
		return nil
	}

	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// An agent was killed between the rename and the reopening.
		return r.reopen(ctx, id)
	case err != nil || info.Size() < r.cfg.MaxSize:
		return nil
	}

	return r.rotate(ctx, id, path)
}

// path returns the log of a container, empty if it has none or is gone.
func (r *Rotator) path(ctx context.Context, id string) string {
	if path, known := r.paths[id]; known {
		return path
	}
	status, err := r.cfg.Runtime.ContainerStatus(ctx, id)
	if err != nil || status.LogPath == "" {
		return ""
	}
	r.paths[id] = status.LogPath
	return status.LogPath
}

// rotate rotates the log of one container.
func (r *Rotator) rotate(ctx context.Context, id, path string) error {
	if err := r.makeRoom(path); err != nil {
		return fmt.Errorf("rotate log %s: %w", path, err)
	}

	rotated := containerlog.RotatedName(path, time.Now())
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}

	if err := r.reopen(ctx, id); err != nil {
		// The runtime still writes to the old file, where nobody would look for what it writes.
		return errors.Join(err, os.Rename(rotated, path))
	}

	return nil
}

func (r *Rotator) reopen(ctx context.Context, id string) error {
	if err := r.cfg.Runtime.ReopenLog(ctx, id); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", id, err)
	}
	return nil
}

// makeRoom removes rotated files that are too many or not completely compressed, and compresses the others.
// It is called before a rotation, so that the newest rotated file is not compressed while a reader may still
// follow it.
func (r *Rotator) makeRoom(path string) error {
	if err := removeUnfinished(path); err != nil {
		return err
	}

	files, err := containerlog.Rotated(path)
	if err != nil {
		return err
	}

	// The current file and the one that it is renamed to are two more.
	surplus := max(len(files)-(r.cfg.MaxFiles-2), 0)
	for _, name := range files[:surplus] {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	for _, name := range files[surplus:] {
		if strings.HasSuffix(name, ".gz") {
			continue
		}
		if err := compress(name); err != nil {
			return err
		}
	}

	return nil
}

// compress writes NAME.tmp, renames it to NAME.gz and removes NAME.
func compress(name string) (err error) {
	in, err := boundedfile.Open(name, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer in.Close()

	temporary := name + ".tmp"
	out, err := os.OpenFile(temporary, os.O_CREATE|os.O_TRUNC|os.O_WRONLY|unix.O_NOFOLLOW, 0o640)
	if err != nil {
		return err
	}

	z := gzip.NewWriter(out)
	_, err = io.Copy(z, in)
	err = errors.Join(err, z.Close(), out.Close())
	if err == nil {
		err = os.Rename(temporary, name+".gz")
	}
	if err != nil {
		return errors.Join(fmt.Errorf("compress log %s: %w", name, err), os.Remove(temporary))
	}

	return os.Remove(name)
}

// removeUnfinished removes the files of compressions that were interrupted.
func removeUnfinished(path string) error {
	dir, base := filepath.Split(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), base+".") && strings.HasSuffix(e.Name(), ".tmp") {
			err = errors.Join(err, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return err
}
