// Command archive-bench measures imports of image archives by trivet-cri beside containerd's ctr, in turns,
// on a machine made of namespaces, whose /var/lib is on this machine's disk. It also passes archives to and
// fro between the two, which must agree on what image each has.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `archive-bench measures imports of image archives, as docker save writes them, by trivet-cri
beside containerd's ctr: the same archive, removed after its import, in turns. Then each exports the image,
the other imports it, and it is an error if its ID is another one there.`

func main() { program.Main("archive-bench", run) }

type options struct {
	dir, programs, references, oci string
	rounds                         int
	json                           string
}

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}

	var o options
	fs := env.Flags(about)
	fs.StringVar(
		&o.dir,
		"dir",
		".trivet/archive-bench",
		"directory for all that it writes, on the disk to measure; removed in the end",
	)

	fs.StringVar(&o.programs, "programs", "bin", "directory of trivet-cri and trivet-monitor")
	fs.StringVar(&o.references, "references", ".trivet/bin", "directory of containerd and ctr")
	fs.StringVar(&o.oci, "oci-runtime", "crun", "trivet-cri does not start without one")
	fs.IntVar(&o.rounds, "rounds", 7, "imports of each archive by each")
	fs.StringVar(&o.json, "json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}

	if err := bench.Absolute(&o.dir, &o.programs, &o.references); err != nil {
		return err
	}

	return bench.OnMachine(ctx, o.dir, func(m *machine.Machine) error { return o.measure(ctx, env, m) })
}

func (o options) measure(ctx context.Context, env *program.Env, m *machine.Machine) error {
	list, err := writeArchives(o.dir)
	if err != nil {
		return err
	}

	sides, err := o.boot(ctx, m)
	if err != nil {
		return err
	}

	fmt.Fprintf(env.Stdout, "| %d imports each, in turns | side | p50 (min, max) s | CPU s | "+
		"peak RSS of the server, MiB |\n|---|---|---|---|---|\n", o.rounds)

	figures := figure.NewWriter(o.json)
	for _, a := range list {
		took := map[*side]loads{}
		for range o.rounds {
			for _, s := range sides {
				l, err := s.measure(ctx, a)
				if err != nil {
					return fmt.Errorf("%s by %s: %w", a.about, s.program, err)
				}

				took[s] = append(took[s], l)
			}
		}

		for _, s := range sides {
			figures.Add(figuresOf(a.about, s.name, took[s])...)
			fmt.Fprintf(env.Stdout, "| %s | %s | %s | %.1f |\n",
				a.about, s.name, took[s].trials(), took[s].peak())
		}

		if err := passToAndFro(ctx, sides, a); err != nil {
			return fmt.Errorf("%s: %w", a.about, err)
		}
	}

	return figures.Close()
}

// passToAndFro has each side export an image that the other then imports.
func passToAndFro(ctx context.Context, sides []*side, a saved) error {
	for i, from := range sides {
		to := sides[1-i]
		file := a.file + ".from-" + from.name
		if err := from.load(ctx, a.file); err != nil {
			return err
		}

		before, err := from.id(ctx, a.name)
		if err != nil {
			return err
		}
		if err := errors.Join(from.export(ctx, file, a.name), from.remove(ctx, a.name)); err != nil {
			return err
		}

		if err := to.load(ctx, file); err != nil {
			return fmt.Errorf("archive of %s: %w", from.name, err)
		}

		after, err := to.id(ctx, a.name)
		if err != nil {
			return err
		}
		if before != after || before != a.id {
			return fmt.Errorf("the image is %s, %s with %s, and %s with %s that got it from there",
				a.id, before, from.name, after, to.name)
		}
		if err := errors.Join(to.remove(ctx, a.name), os.Remove(file)); err != nil {
			return err
		}
	}

	return nil
}

// measure measures one import and removes the image.
func (s *side) measure(ctx context.Context, a saved) (load, error) {
	// What the other one wrote must not be this one's work.
	unix.Sync()
	if err := s.forgetPeak(); err != nil {
		return load{}, err
	}

	before, start := s.cpu(), time.Now()
	if err := s.load(ctx, a.file); err != nil {
		return load{}, err
	}

	l := load{
		Trial: bench.Trial{Took: time.Since(start), CPU: s.cpu() - before + s.client},
		peak:  s.peak(),
	}
	id, err := s.id(ctx, a.name)
	if err != nil {
		return l, err
	}
	if id != a.id {
		return l, fmt.Errorf("the image is %s, want %s", id, a.id)
	}

	return l, s.remove(ctx, a.name)
}
