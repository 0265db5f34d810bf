package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/loan"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/quotadir"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
)

// backends are those that work on this node. A further one is opened here.
type backends struct {
	forVolumes map[string]volume.Backend
	forPods    map[string]publish.Backend
	forLoans   map[string]loan.Backend
	preferred  []string        // names of those that requests get that name none, the best first
	pool       *btrfspool.Pool // nil where it does not work
	dirs       *quotadir.Dirs  // nil where they do not work
}

// backend is what each of them is.
type backend interface {
	volume.Backend
	publish.Backend
	loan.Backend
}

// openBackends opens them. It waits for the records of volumes when the pool is open.
func openBackends(
	ctx context.Context,
	log *slog.Logger,
	o options,
	instance string,
	records func() (*volume.Records, error),
) (backends, error) {
	b := backends{
		forVolumes: map[string]volume.Backend{},
		forPods:    map[string]publish.Backend{},
		forLoans:   map[string]loan.Backend{},
	}
	poolErr := b.openPool(ctx, log, o, instance)
	filesErr := b.openFiles(log, o, instance, records)
	dirsErr := b.openDirs(log, o, instance, records)
	if poolErr != nil {
		log.Warn("backend does not work", "backend", btrfspool.Name, "err", poolErr)
	}
	if filesErr != nil {
		log.Warn("backend does not work", "backend", loopfile.Name, "err", filesErr)
	}
	if dirsErr != nil {
		// Most disks are without, and need not have them, unless there are volumes.
		level := slog.LevelInfo
		if b.forVolumes[quotadir.Name] != nil {
			level = slog.LevelWarn
		}
		log.Log(ctx, level, "backend does not work", "backend", quotadir.Name, "err", dirsErr)
	}

	b.preferred = preferred(o.backend, b.forVolumes)
	if len(b.preferred) > 0 {
		return b, nil
	}

	err := errors.Join(poolErr, filesErr, dirsErr)
	if o.backend != "auto" {
		return backends{}, &program.CantRunError{
			What: fmt.Sprintf("backend %s does not work: %v", o.backend, err),
			Do:   "choose another one with --backend",
		}
	}
	return backends{}, &program.CantRunError{
		What: fmt.Sprintf("no backend works: %v", err),
		Do:   "give it loop devices and mkfs.btrfs, mkfs.xfs or mkfs.ext4, or a disk with project quotas",
	}
}

// preferred returns the backends for requests that name none, the best first, of those that work. The pool
// has snapshots and clones; what an image may hold is there when it is written, and no pod has more than
// that, whatever it does to its files. So directories with quotas are for who asks for them, and for nodes
// that have neither.
func preferred(wanted string, work map[string]volume.Backend) []string {
	if wanted != "auto" {
		if work[wanted] == nil {
			return nil
		}

		// Raw block volumes are files whatever the preference is.
		return slices.Compact([]string{wanted, loopfile.Name})
	}

	var names []string
	for _, name := range []string{btrfspool.Name, loopfile.Name} {
		if work[name] != nil {
			names = append(names, name)
		}
	}
	if len(names) == 0 && work[quotadir.Name] != nil {
		names = []string{quotadir.Name}
	}
	return names
}

// openPool opens the btrfs pool. One that cannot be used now is a backend nevertheless: it is opened again
// while the driver runs.
func (b *backends) openPool(ctx context.Context, log *slog.Logger, o options, instance string) error {
	reserve, err := reserveOf(o)
	if err != nil {
		return err
	}

	p, err := btrfspool.Open(ctx, btrfspool.Config{
		Dir:      o.dataDir,
		Instance: instance,
		Most:     o.poolSize,
		Reserve:  reserve,
	})
	if err != nil {
		return err
	}
	b.pool = p
	b.add(btrfspool.Name, p)
	if err := p.Err(); err != nil {
		return err
	}
	log.Info("backend works", "backend", btrfspool.Name, "pool", p.String())
	return nil
}

// openFiles opens the images on the disk. If their directory is not there, and has volumes, they are a
// backend nevertheless.
func (b *backends) openFiles(
	log *slog.Logger,
	o options,
	instance string,
	records func() (*volume.Records, error),
) error {
	known, err := records()
	if err != nil {
		return err
	}

	files, err := loopfile.Open(loopfile.Config{
		Dir:      o.dataDir,
		Instance: instance,
		Held:     known.Has(loopfile.Name),
	})
	if err != nil {
		return err
	}

	b.add(loopfile.Name, files)
	if err := files.Check(false); err != nil {
		return err
	}
	log.Info("backend works", "backend", loopfile.Name)
	return nil
}

// openDirs opens the directories with project quotas. Where limits do not hold now, and did before, it is a
// backend nevertheless.
func (b *backends) openDirs(
	log *slog.Logger,
	o options,
	instance string,
	records func() (*volume.Records, error),
) error {
	known, err := records()
	if err != nil {
		return err
	}

	dirs, err := quotadir.Open(quotadir.Config{
		Dir:      o.dataDir,
		Instance: instance,
		Held:     known.HasMade(quotadir.Name),
	})
	if err != nil {
		return err
	}
	b.dirs = dirs
	b.add(quotadir.Name, dirs)
	dirs.OnFinding(func(id string, err error) {
		log.Warn("volumes with project quotas", "volume", id, "err", err)
	})
	if err := dirs.Check(false); err != nil {
		return err
	}
	log.Info("backend works", "backend", quotadir.Name, "volumes", dirs.String())
	return nil
}

func (b *backends) add(name string, one backend) {
	b.forVolumes[name] = one
	b.forPods[name] = one
	b.forLoans[name] = one
}
