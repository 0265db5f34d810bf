package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/program"
)

const (
	floorOnes  = 200  // records that are written one after the other
	floorAtOne = 2000 // by 16 writers
	creations  = 1000
)

// milliseconds is the median.
func milliseconds(took []time.Duration) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return sorted[len(sorted)/2].Seconds() * 1000
}

// floor measures creations alone, 16 at once, and what the disk does of that when there is no driver: a
// record of 400 bytes that is on the disk when the call returns, which no creation takes less than.
func (b *bench) floor(ctx context.Context, env *program.Env, figures *figure.Writer) error {
	dir := filepath.Join(b.dir, "floor")
	records, err := durable.OpenStore[string](dir, false)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)

	record := string(slices.Repeat([]byte{'x'}, 400))
	write := func(workers, n int) (float64, error) {
		return rate(workers, n, func(i int) error {
			return records.Put(fmt.Sprint(workers, "-", i), record)
		})
	}
	alone, errAlone := write(1, floorOnes)
	atOnce, errAtOnce := write(16, floorAtOne)

	var ids [creations]string
	created, errCreate := rate(16, creations, func(i int) (err error) {
		ids[i], err = b.create(ctx, fmt.Sprintf("creation-%d", i))
		return err
	})
	_, errDelete := rate(16, creations, func(i int) error {
		gone := b.volume("", kind{}, 0)
		gone.id = ids[i]
		return gone.delete(ctx)
	})
	if err := errors.Join(errAlone, errAtOnce, errCreate, errDelete); err != nil {
		return err
	}

	fmt.Fprintf(
		env.Stdout,
		"\n%d volumes present: %.0f creations/s, 16 at once; the disk alone writes %.0f synced records/s"+
			" of one writer, %.0f of 16 that share their syncs\n",
		b.filled,
		created,
		alone,
		atOnce,
	)
	figures.Add(
		b.perSecond(fmt.Sprintf("creations, %d volumes present, 16 at once", b.filled), created),
		b.perSecond("synced records of the disk alone, 1 writer", alone),
		b.perSecond("synced records of the disk alone, 16 writers", atOnce),
	)
	return nil
}

func (b *bench) perSecond(what string, rate float64) figure.Figure {
	return figure.Figure{
		Bench:  "csi",
		What:   what,
		Side:   b.side,
		Unit:   "1/s",
		Median: float64(int64(rate)),
	}
}

// rate returns how often a second f is done by so many workers.
func rate(workers, n int, f func(i int) error) (float64, error) {
	began := time.Now()
	err := inParallel(workers, n, f)
	return float64(n) / time.Since(began).Seconds(), err
}
