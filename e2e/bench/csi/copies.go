package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
)

const (
	copies   = 10
	copied   = 1 << 30 // bytes that are in the volume
	copySize = 5 << 28 // of the volume: a file system needs some of it

	// otherLives are how many other volumes live while nothing is copied.
	otherLives = 60
)

// copyCalls are measured, beside the longest of other calls meanwhile.
var copyCalls = []string{"snapshot", "restore", "clone"}

// compareCopies measures snapshots of volumes with 1 GiB in them, and volumes that are made of those and of
// the volumes themselves, while another volume goes through one life after the other: a driver that keeps
// others waiting shows in the longest of their calls, which without copies is measured before.
func (b *bench) compareCopies(ctx context.Context, env *program.Env, figures *figure.Writer) error {
	var idle atomic.Int64
	alone, err := b.others(ctx, func() bool { return idle.Add(1) > otherLives })
	if err != nil {
		return err
	}

	figures.Add(longest("longest other call while nothing is copied", b.side, alone))
	fmt.Fprintf(env.Stdout, "\n| 1 GiB written | snapshot | restore | clone | longest other call meanwhile "+
		"(nothing copied: %.2f ms) |\n|---|---|---|---|---|\n", slices.Max(alone).Seconds()*1000)
	return b.ofEachKind(ctx, env, func(k kind) error { return b.copyKind(ctx, env, k, figures) })
}

func longest(what, side string, took []time.Duration) figure.Figure {
	return figure.Of("csi", what, side, []time.Duration{slices.Max(took)})
}

// copyKind fills a volume of a kind and copies it, if that kind has copies.
func (b *bench) copyKind(ctx context.Context, env *program.Env, k kind, figures *figure.Writer) (err error) {
	v := b.volume("copied", k, copySize)
	defer func() { err = errors.Join(err, v.disappear(ctx)) }()
	if err := v.appear(ctx); err != nil {
		return err
	}

	id, err := v.snapshot(ctx, "tried")
	if isRefused(err) {
		return nil
	}
	if err := errors.Join(err, v.deleteSnapshot(ctx, id), write(b.file(v), copied)); err != nil {
		return err
	}

	took, others, err := v.copyBeside(ctx)
	if err != nil {
		return err
	}

	cells := []string{k.name}
	for _, call := range copyCalls {
		cells = append(cells, took.median(call))
		figures.Add(figure.Of("csi", call+" of 1 GiB, "+k.name, b.side, took[call]))
	}

	figures.Add(longest("longest other call beside copies, "+k.name, b.side, others))
	cells = append(cells, fmt.Sprintf("%.2f ms", slices.Max(others).Seconds()*1000))
	fmt.Fprintf(env.Stdout, "| %s |\n", strings.Join(cells, " | "))
	return nil
}

// file is what is written to in a volume: the device, or a file in it.
func (b *bench) file(v *volume) string {
	if v.kind.block {
		return b.seen(v.target)
	}
	return filepath.Join(b.seen(v.target), "data")
}

// write writes random bytes to a file and syncs it.
func write(path string, size int) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	chunk := make([]byte, 1<<20)
	_, _ = rand.Read(chunk)
	for at := 0; at < size; at += len(chunk) {
		if _, err := f.WriteAt(chunk, int64(at)); err != nil {
			return err
		}
	}
	return f.Sync()
}

// copyBeside copies a volume while others live, and returns how long their calls took, too.
func (v *volume) copyBeside(ctx context.Context) (took times, others []time.Duration, err error) {
	var done atomic.Bool
	ended := make(chan error, 1)
	go func() {
		var err error
		others, err = v.driver.others(ctx, done.Load)
		ended <- err
	}()

	took = times{}
	for i := range copies {
		if err = v.copyOnce(ctx, i, took); err != nil {
			break
		}
	}

	done.Store(true)
	err = errors.Join(err, <-ended)
	return took, others, err
}

// others has a volume at a time go through its life until that is enough, and returns how long each call
// took.
func (d *driver) others(ctx context.Context, enough func() bool) ([]time.Duration, error) {
	var calls []time.Duration
	for i := 0; i == 0 || !enough(); i++ {
		took, err := d.volume(fmt.Sprintf("other-%d", i), kind{}, 1<<20).life(ctx, steps)
		if err != nil {
			return nil, fmt.Errorf("another volume: %w", err)
		}
		for _, step := range took {
			calls = append(calls, step...)
		}
	}
	return calls, nil
}

// copyOnce makes a snapshot, a volume of that, and a clone, and deletes all of them.
func (v *volume) copyOnce(ctx context.Context, i int, took times) error {
	var snapshot string
	err := took.do("snapshot", func() (err error) {
		snapshot, err = v.snapshot(ctx, fmt.Sprint("copied-", i))
		return err
	})
	if err != nil {
		return err
	}

	restored := v.driver.volume(fmt.Sprint("restored-", i), v.kind, copySize)
	restored.source = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: snapshot},
	}}
	cloned := v.driver.volume(fmt.Sprint("cloned-", i), v.kind, copySize)
	cloned.source = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: v.id},
	}}

	err = errors.Join(
		took.do("restore", func() error { return restored.create(ctx) }),
		took.do("clone", func() error { return cloned.create(ctx) }),
	)
	if err != nil {
		return err
	}

	return errors.Join(v.deleteSnapshot(ctx, snapshot), restored.delete(ctx), cloned.delete(ctx))
}
