package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
)

const (
	asked  = 100 // times each
	starts = 5

	// expansions by a quarter, or 1 MiB, make 1 MiB some GiB.
	expansions = 30

	// quiet is how long nothing is asked until memory is looked at once more.
	quiet = 30 * time.Second
)

// rest measures what there is one of.
func (b *bench) rest(ctx context.Context, env *program.Env, figures *figure.Writer) error {
	page, capacity, err := b.questions(ctx)
	if err != nil {
		return err
	}
	expand, err := b.expansions(ctx)
	if err != nil {
		return err
	}
	worked, rested, err := b.residentAndLater(ctx)
	if err != nil {
		return err
	}
	took, err := b.restart(ctx)
	if err != nil {
		return err
	}
	started, err := b.resident()
	if err != nil {
		return err
	}

	present := fmt.Sprintf("%d volumes present", b.filled)
	fmt.Fprintf(
		env.Stdout,
		"\n%s: page of 100 in ListVolumes %.2f ms; GetCapacity %.2f ms; expand %.2f ms; start to first "+
			"answer %.0f ms; resident memory %.1f MiB after all that, %.1f MiB half a minute later, "+
			"%.1f MiB after a start\n",
		present,
		milliseconds(page),
		milliseconds(capacity),
		milliseconds(expand),
		milliseconds(took),
		worked,
		rested,
		started,
	)
	figures.Add(
		figure.Of("csi", "page of 100 in ListVolumes, "+present, b.side, page),
		figure.Of("csi", "GetCapacity, "+present, b.side, capacity),
		figure.Of("csi", "expand, "+present, b.side, expand),
		figure.Of("csi", "start to first answer, "+present, b.side, took),
		figure.Figure{
			Bench:  "csi",
			What:   "resident memory, " + present,
			Side:   b.side,
			Unit:   "MiB",
			Median: worked,
		},
		figure.Figure{
			Bench:  "csi",
			What:   "resident memory at rest, " + present,
			Side:   b.side,
			Unit:   "MiB",
			Median: rested,
		},
	)
	return nil
}

// residentAndLater returns the resident memory at once, and when nothing was asked for a while.
func (b *bench) residentAndLater(ctx context.Context) (now, later float64, err error) {
	if now, err = b.resident(); err != nil {
		return 0, 0, err
	}
	if err := retry.Sleep(ctx, quiet); err != nil {
		return 0, 0, err
	}
	later, err = b.resident()
	return now, later, err
}

// restart starts the driver repeatedly, and returns how long it takes until it answers.
func (b *bench) restart(ctx context.Context) ([]time.Duration, error) {
	var took []time.Duration
	for range starts {
		if err := b.stop(); err != nil {
			return nil, err
		}
		began := time.Now()
		if err := b.start(ctx); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, nil
}

// questions asks for the first page of volumes, and for what is left, as often as it takes for a median.
func (b *bench) questions(ctx context.Context) (page, capacity []time.Duration, err error) {
	took, controller := times{}, csi.NewControllerClient(b.conn)
	for range asked {
		err := errors.Join(
			took.do("page", func() error {
				_, err := controller.ListVolumes(ctx, &csi.ListVolumesRequest{MaxEntries: 100})
				return err
			}),
			took.do("capacity", func() error {
				_, err := controller.GetCapacity(ctx, &csi.GetCapacityRequest{})
				return err
			}),
		)
		if err != nil {
			return nil, nil, err
		}
	}
	return took["page"], took["capacity"], nil
}

// expansions makes a volume in use larger several times.
func (b *bench) expansions(ctx context.Context) ([]time.Duration, error) {
	v := b.volume("expanded", kind{}, 1<<20)
	err := v.appear(ctx)

	took := times{}
	for i := 0; i < expansions && err == nil; i++ {
		err = took.do("expand", func() error { return v.expand(ctx) })
	}
	return took["expand"], errors.Join(err, v.disappear(ctx))
}

// resident returns the resident memory of the driver in MiB.
func (b *bench) resident() (float64, error) {
	path := fmt.Sprintf("/proc/%d/status", b.cmd.Process.Pid)
	status, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if field, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(field), " kB"), 64)
			return kib / 1024, err
		}
	}
	return 0, fmt.Errorf("%s has no VmRSS", path)
}
