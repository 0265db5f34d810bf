// Command csi measures a trivet-csi binary over its socket, in parts: the calls of volumes' lives alone and
// 16 at once, with few and with many volumes present, beside what the disk does without a driver; what there
// is one of, such as growth, GetCapacity, the start and memory; the ways in which volumes are held; snapshots
// and clones, and how long other calls take meanwhile; input and output beside the bare disk, by fio. It
// prints medians as Markdown tables, and at the end what docs/csi.md shows of them. With --peer the lives are
// measured, in turns, of another driver that listens on a socket already.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/e2e/bench/csi/report"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
)

func main() { program.Main("bench-csi", run) }

// part is one of what is measured.
type part struct {
	name    string
	measure func(*bench, context.Context, *program.Env, *figure.Writer) error
}

// parts are in the order in which they are measured: the first begins with an empty driver and leaves many
// volumes, with which the others are measured.
var parts = []part{
	{"lives", (*bench).compareLives},
	{"creations", (*bench).floor},
	{"rest", (*bench).rest},
	{"kinds", (*bench).compareKinds},
	{"copies", (*bench).compareCopies},
	{"io", (*bench).compareIO},
}

// options are what is asked for.
type options struct {
	binary string
	dir    string
	peer   string
	many   int // volumes
	ioSize int64
	parts  []string
	kinds  string // how the names of the kinds begin that are measured
}

func run(ctx context.Context, env *program.Env) (err error) {
	var o options
	fs := env.Flags("Measures trivet-csi and prints medians. Needs root and 30 GiB of disk.")
	fs.StringVar(&o.binary, "binary", "bin/trivet-csi", "the program to measure")
	fs.StringVar(&o.dir, "dir", "", "directory for its volumes (default: a temporary one)")
	fs.StringVar(&o.peer, "peer",
		"", "socket of a running driver to compare with; best started in a mount namespace of its own")
	fs.IntVar(&o.many, "volumes", 5000, "how many volumes are present in the second half")
	fs.Int64Var(&o.ioSize, "io-size", 1<<30, "bytes of the file that fio reads and writes")
	fs.StringVar(&o.kinds, "kinds", "",
		"in the parts kinds, copies and io measure those kinds alone whose names begin so, such as trivet:")
	only := fs.String("parts", "", "measure these alone, separated by commas: "+strings.Join(names(), ", "))
	file := fs.String("json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}
	if o.parts, err = chosen(*only); err == nil {
		err = checkKinds(o.kinds, o.parts)
	}
	if err != nil {
		return err
	}

	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "bench"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}

	figures := figure.NewWriter(*file)
	if err := measure(ctx, env, o, figures); err != nil {
		return err
	}

	fmt.Fprint(env.Stdout, "\n", report.Section(figures.All()))
	return figures.Close()
}

func names() []string {
	var all []string
	for _, p := range parts {
		all = append(all, p.name)
	}
	return all
}

// chosen are the parts of a list, all of them if it is empty.
func chosen(list string) ([]string, error) {
	if list == "" {
		return names(), nil
	}
	some := strings.Split(list, ",")
	for _, name := range some {
		if !slices.Contains(names(), name) {
			return nil, fmt.Errorf("there is no part %q; there are %s", name, strings.Join(names(), ", "))
		}
	}
	return some, nil
}

// measure starts the driver and measures the parts that are asked for.
func measure(ctx context.Context, env *program.Env, o options, figures *figure.Writer) (err error) {
	b := &bench{driver: driver{name: "trivet-csi", side: figure.Ours, dir: o.dir}, options: o}
	if b.state, err = os.MkdirTemp("/dev/shm", "bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.state)) }()

	if err := b.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()

	for _, p := range parts {
		if !slices.Contains(o.parts, p.name) {
			continue
		}
		if err := p.measure(b, ctx, env, figures); err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
	}
	return nil
}
