package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/mount"
	"github.com/trivet-node/trivet/csi/pool"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/lockfile"
	"github.com/trivet-node/trivet/internal/program"
)

// storage is what holds the volumes.
type storage struct {
	volumes *volume.Service
	pool    *pool.Pool // nil where it doesn't work
	lock    *os.File
	targets *mount.Root
}

func openStorage(ctx context.Context, log *slog.Logger, o options) (*storage, error) {
	for _, dir := range []string{o.dataDir, o.stateDir, o.kubeletDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}

	if err := mount.Supported(); err != nil {
		return nil, &program.CantRunError{
			What: "the kernel is too old: " + err.Error(),
			Do:   "use Linux 5.12 or newer",
		}
	}

	s := &storage{}
	var err error
	what := "data directory " + o.dataDir + " (--data-dir)"
	if s.lock, err = lockfile.Take(ctx, filepath.Join(o.dataDir, "lock"), what); err != nil {
		return nil, err
	}
	if s.targets, err = mount.OpenRoot(o.kubeletDir); err != nil {
		return nil, err
	}
	if err := chooseReserve(&o); err != nil {
		return nil, err
	}

	backends, order, err := s.openBackends(ctx, log, o)
	if err != nil {
		return nil, err
	}

	volumes, report, err := volume.Open(volume.Config{
		DataDir:  o.dataDir,
		StateDir: o.stateDir,
		Targets:  s.targets,
		Backends: backends,
		Default:  order,
		Reserve:  o.reserve,
		Most:     o.poolSize,
	})
	if err != nil {
		return nil, err
	}

	s.volumes = volumes
	tell(log, report)
	volumes.OnTrouble(func(backend string, err error) {
		if err == nil {
			log.Info("backend works again", "backend", backend)
		} else {
			log.Error("backend is in trouble", "backend", backend, "err", err)
		}
	})

	return s, nil
}

// openBackends opens all that work, in the order in which volumes prefer them.
func (s *storage) openBackends(
	ctx context.Context,
	log *slog.Logger,
	o options,
) (map[string]volume.Backend, []string, error) {
	instance, err := instanceOf(o.dataDir)
	if err != nil {
		return nil, nil, err
	}

	backends, order := map[string]volume.Backend{}, []string{}
	p, poolErr := pool.Open(ctx, pool.Config{Dir: o.dataDir, Instance: instance, Size: o.poolSize})
	if poolErr == nil {
		s.pool = p

		// tried again while the driver runs
		poolErr = p.Err()
		backends[pool.Name] = p
		order = append(order, pool.Name)
	}

	if poolErr == nil {
		log.Info("backend works", "backend", pool.Name, "pool", p.String())
	} else {
		log.Warn("backend does not work", "backend", pool.Name, "err", poolErr)
	}

	im, imageErr := image.Open(image.Config{Dir: o.dataDir, Instance: instance})
	if imageErr == nil {
		backends[image.Name] = im
		order = append(order, image.Name)
		log.Info("backend works", "backend", image.Name)
	} else {
		log.Warn("backend does not work", "backend", image.Name, "err", imageErr)
	}

	if o.backend != "auto" {
		if backends[o.backend] == nil {
			return nil, nil, &program.CantRunError{What: fmt.Sprintf("backend %s does not work: %v",
				o.backend, errors.Join(poolErr, imageErr)),
				Do: "choose another one with --backend"}
		}

		// Raw block volumes are images whatever the preference is.
		order = append([]string{o.backend}, image.Name)
	}

	if len(order) == 0 {
		return nil, nil, &program.CantRunError{What: fmt.Sprintf("no backend works: %v",
			errors.Join(poolErr, imageErr)),
			Do: "give it loop devices and mkfs.btrfs, mkfs.xfs or mkfs.ext4"}
	}

	return backends, order, nil
}

// instanceOf returns the random name that marks the loop devices of this data directory, which outlives the
// process and the boot.
func instanceOf(dir string) (string, error) {
	path := filepath.Join(dir, "instance")
	data, err := os.ReadFile(path)
	if err == nil && len(strings.TrimSpace(string(data))) == 8 {
		return strings.TrimSpace(string(data)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}

	var id [4]byte
	if _, err := rand.Read(id[:]); err != nil {
		return "", err
	}

	name := hex.EncodeToString(id[:])
	return name, durable.WriteFile(path, []byte(name+"\n"), 0o600)
}

// chooseReserve fills in what the flags left to the size of the disk.
func chooseReserve(o *options) error {
	var st unix.Statfs_t
	if err := unix.Statfs(o.dataDir, &st); err != nil {
		return &os.PathError{Op: "statfs", Path: o.dataDir, Err: err}
	}
	if o.reserve == 0 {
		o.reserve = min(int64(st.Blocks)*st.Bsize/20, 2<<30)
	}
	return nil
}

// tell logs what the start found.
func tell(log *slog.Logger, r volume.Report) {
	for _, t := range r.Torn {
		log.Error("record cannot be read and is set aside",
			"record", t.Name, "kept_as", t.Moved, "err", t.Err)
	}

	for id, err := range r.Damaged {
		log.Error("volume cannot be used", "volume", id, "err", err)
	}

	for _, id := range r.Unmade {
		log.Info("removed a volume whose creation was cut short", "volume", id)
	}

	for _, id := range r.Deleted {
		log.Info("finished the deletion of a volume", "volume", id)
	}

	for _, what := range r.Strays {
		log.Warn("a volume that no record knows is left alone", "volume", what)
	}

	log.Info("volumes are ready",
		"volumes", r.Recovered, "damaged", len(r.Damaged), "unstaged_by_reboot", len(r.Unstaged))
}

// close gives back what the process holds. The pool stays mounted while pods use it.
func (s *storage) close() error {
	var err error
	if s.pool != nil {
		err = s.pool.Close(s.volumes.InUse() == 0)
	}
	return errors.Join(err, s.targets.Close(), s.lock.Close())
}
