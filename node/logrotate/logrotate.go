// Package logrotate keeps containers' logs from filling the disk: a log that has grown beyond a size is
// renamed, the runtime is told to open a new file (CRI ReopenContainerLog), older files are compressed, and
// the oldest are removed.
package logrotate

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/containerlog"
)

// Config says when logs are rotated. The defaults are kubelet's.
type Config struct {
	MaxSize  int64         // bytes; 0: 10 MiB
	MaxFiles int           // with the current one, at least 2; 0: 5
	Every    time.Duration // between checks; 0: 10 s
	Runtime  cri.RuntimeServiceClient
	Log      *slog.Logger
}

// Rotator rotates.
type Rotator struct{ cfg Config }

// New returns a rotator.
func New(cfg Config) (*Rotator, error) {
	if cfg.MaxSize == 0 {
		cfg.MaxSize = 10 << 20
	}
	if cfg.MaxFiles == 0 {
		cfg.MaxFiles = 5
	}
	if cfg.Every == 0 {
		cfg.Every = 10 * time.Second
	}
	if cfg.MaxFiles < 2 {
		return nil, fmt.Errorf("containerLogMaxFiles %d: must be at least 2", cfg.MaxFiles)
	}

	return &Rotator{cfg}, nil
}

// Run checks all running containers again and again until ctx ends.
func (r *Rotator) Run(ctx context.Context) error {
	tick := time.NewTicker(r.cfg.Every)
	defer tick.Stop()

	// container -> log: a container's log path never changes
	paths := map[string]string{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if err := r.check(ctx, paths); err != nil && ctx.Err() == nil {
				r.cfg.Log.Warn("logs are not rotated", "err", err)
			}
		}
	}
}

func (r *Rotator) check(ctx context.Context, paths map[string]string) error {
	answer, err := r.cfg.Runtime.ListContainers(ctx, &cri.ListContainersRequest{Filter: &cri.ContainerFilter{
		State: &cri.ContainerStateValue{State: cri.ContainerState_CONTAINER_RUNNING}}})
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}

	running := map[string]bool{}
	var errs []error
	for _, c := range answer.Containers {
		running[c.Id] = true
		if paths[c.Id] == "" {
			status, err := r.cfg.Runtime.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: c.Id})
			if err != nil || status.Status.GetLogPath() == "" {
				// gone meanwhile, or without a log
				continue
			}

			paths[c.Id] = status.Status.LogPath
		}

		info, err := os.Stat(paths[c.Id])
		if errors.Is(err, fs.ErrNotExist) {
			// A rotation was cut off between the rename and the reopening.
			errs = append(errs, r.reopen(ctx, c.Id))
			continue
		}

		if err != nil || info.Size() < r.cfg.MaxSize {
			continue
		}

		errs = append(errs, r.Rotate(ctx, c.Id, paths[c.Id]))
	}

	for id := range paths {
		if !running[id] {
			delete(paths, id)
		}
	}

	return errors.Join(errs...)
}

// Rotate rotates the log of one container now.
func (r *Rotator) Rotate(ctx context.Context, id, path string) error {
	if err := r.makeRoom(path); err != nil {
		return fmt.Errorf("rotate log %s: %w", path, err)
	}

	rotated := path + "." + time.Now().UTC().Format("20060102-150405")
	if err := os.Rename(path, rotated); err != nil {
		return fmt.Errorf("rotate log: %w", err)
	}

	if err := r.reopen(ctx, id); err != nil {
		// The runtime still writes to the old file: give it its name back, or nobody finds what it writes.
		return errors.Join(err, os.Rename(rotated, path))
	}

	return nil
}

func (r *Rotator) reopen(ctx context.Context, id string) error {
	if _, err := r.cfg.Runtime.ReopenContainerLog(ctx, &cri.ReopenContainerLogRequest{
		ContainerId: id,
	}); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", id, err)
	}
	return nil
}

// makeRoom removes what is too old or half compressed and compresses the rest: the newest rotated file is
// compressed only at the next rotation, because a reader may still be on it.
func (r *Rotator) makeRoom(path string) error {
	if err := removeUnfinished(path); err != nil {
		return err
	}

	files, err := containerlog.Rotated(path)
	if err != nil {
		return err
	}

	for keep := r.cfg.MaxFiles - 2; len(files) > keep; files = files[1:] {
		if err := os.Remove(files[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	for _, name := range files {
		if !strings.HasSuffix(name, ".gz") {
			if err := compress(name); err != nil {
				return err
			}
		}
	}

	return nil
}

// compress writes NAME.gz by way of NAME.tmp, then removes NAME.
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

// removeUnfinished removes what a compression that was killed has left.
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
