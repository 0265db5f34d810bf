package main

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
)

// compareLives measures the driver, and its peer if there is one, in turns, so that what else happens on the
// machine hits both.
func (b *bench) compareLives(ctx context.Context, env *program.Env, figures *figure.Writer) error {
	drivers := []*driver{&b.driver}
	if b.options.peer != "" {
		other, err := connect(ctx, b.options.peer, b.dir)
		if err != nil {
			return err
		}
		defer other.conn.Close()

		drivers = append(drivers, other)
	}

	fmt.Fprintln(
		env.Stdout,
		"\n| driver | volumes | at once | create | stage | publish | unpublish | unstage | delete | lives/s "+
			"|\n|---|---|---|---|---|---|---|---|---|---|",
	)
	for _, l := range []load{
		{0, 1, 200},
		{0, 16, 800},
		{b.options.many, 1, 200},
		{b.options.many, 16, 800},
	} {
		for _, d := range drivers {
			if err := d.fill(ctx, l.present); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}

		for _, d := range drivers {
			took, err := d.measure(ctx, env, l)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}

			figures.Add(figuresOf(d, l, took)...)
		}
	}

	return nil
}

// load is under what the calls are measured.
type load struct {
	present int // volumes
	atOnce  int // calls
	lives   int // of volumes, from creation to deletion
}

// figuresOf has a figure for each step of a volume's life.
func figuresOf(d *driver, l load, took times) []figure.Figure {
	var all []figure.Figure
	for _, step := range steps {
		what := fmt.Sprintf("%s, %d volumes present, %d at once", step.name, l.present, l.atOnce)
		all = append(all, figure.Of("csi", what, d.side, took[step.name]))
	}
	return all
}

// measure takes volumes through their lives, prints medians, and returns how long each step took.
func (d *driver) measure(ctx context.Context, env *program.Env, l load) (times, error) {
	var mu sync.Mutex
	took := times{}
	began := time.Now()
	err := inParallel(l.atOnce, l.lives, func(i int) error {
		v := d.volume(fmt.Sprintf("life-%d-%d-%d", l.present, l.atOnce, i), kind{}, 1<<20)
		one, err := v.life(ctx, steps)
		mu.Lock()
		defer mu.Unlock()

		took.add(one)
		return err
	})
	if err != nil {
		return nil, err
	}

	row := []string{d.name, fmt.Sprint(l.present), fmt.Sprint(l.atOnce)}
	for _, step := range steps {
		row = append(row, took.median(step.name))
	}

	row = append(row, fmt.Sprintf("%.0f", float64(l.lives)/time.Since(began).Seconds()))
	_, err = fmt.Fprintf(env.Stdout, "| %s |\n", strings.Join(row, " | "))
	return took, err
}
