package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/loan"
	"github.com/trivet-node/trivet/csi/loopfile"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/program"
)

// backends are those that work on this node. A further one is opened here.
type backends struct {
	forVolumes map[string]volume.Backend
	forPods    map[string]publish.Backend
	forLoans   map[string]loan.Backend
	preferred  []string        // names, the best first
	pool       *btrfspool.Pool // nil where it does not work
}

// backend is what each of them is.
type backend interface {
	volume.Backend
	publish.Backend
	loan.Backend
}

func openBackends(ctx context.Context, log *slog.Logger, o options) (backends, error) {
	instance, err := instanceOf(o.dataDir)
	if err != nil {
		return backends{}, err
	}

	b := backends{
		forVolumes: map[string]volume.Backend{},
		forPods:    map[string]publish.Backend{},
		forLoans:   map[string]loan.Backend{},
	}
	poolErr := b.openPool(ctx, log, o, instance)
	filesErr := b.openFiles(log, o, instance)
	if poolErr != nil {
		log.Warn("backend does not work", "backend", btrfspool.Name, "err", poolErr)
	}
	if filesErr != nil {
		log.Warn("backend does not work", "backend", loopfile.Name, "err", filesErr)
	}

	if o.backend != "auto" {
		if b.forVolumes[o.backend] == nil {
			return backends{}, &program.CantRunError{
				What: fmt.Sprintf("backend %s does not work: %v", o.backend, errors.Join(poolErr, filesErr)),
				Do:   "choose another one with --backend",
			}
		}

		// Raw block volumes are files whatever the preference is.
		b.preferred = []string{o.backend, loopfile.Name}
	}

	if len(b.preferred) == 0 {
		return backends{}, &program.CantRunError{
			What: fmt.Sprintf("no backend works: %v", errors.Join(poolErr, filesErr)),
			Do:   "give it loop devices and mkfs.btrfs, mkfs.xfs or mkfs.ext4",
		}
	}

	return b, nil
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

func (b *backends) openFiles(log *slog.Logger, o options, instance string) error {
	files, err := loopfile.Open(loopfile.Config{Dir: o.dataDir, Instance: instance})
	if err != nil {
		return err
	}
	b.add(loopfile.Name, files)
	log.Info("backend works", "backend", loopfile.Name)
	return nil
}

func (b *backends) add(name string, one backend) {
	b.forVolumes[name] = one
	b.forPods[name] = one
	b.forLoans[name] = one
	b.preferred = append(b.preferred, name)
}
