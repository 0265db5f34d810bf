// Command cni-bench measures ADD and DEL of trivet-cni beside upstream's bridge, host-local and portmap, by
// libcni, as a runtime calls them: each in a network namespace of its own that stands for the host's, in
// turns. Nothing touches the network of this machine.
package main

import (
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `cni-bench measures the CNI operations ADD and DEL of trivet-cni beside those of upstream's
plugins, both called by libcni.`

func main() { program.Main("cni-bench", run) }

type options struct {
	plugin, before, upstream, floor string
	rounds, present                 int
	only                            string
	dir                             string
	figures                         *figure.Writer
}

func run(ctx context.Context, env *program.Env) error {
	var o options
	fs := env.Flags(about)
	fs.StringVar(&o.plugin, "plugin", "bin/trivet-cni", "trivet-cni")
	fs.StringVar(&o.before, "before", "", "another trivet-cni, which is measured beside it; empty: none")
	fs.StringVar(&o.upstream, "upstream", ".trivet/bin/cni", "directory of upstream's plugins")
	fs.StringVar(&o.floor, "floor", "bin/cni-floor", "what sends a plugin's messages and does nothing else")
	fs.StringVar(&o.only, "only", "", "what the cases that are measured have in their names; empty: all")
	fs.StringVar(&o.dir, "dir", "/dev/shm", "where the plugins keep what they record")
	fs.IntVar(&o.rounds, "rounds", 60, "ADD and DEL of each, in turns")
	fs.IntVar(&o.present, "present", 10, "pods that are there meanwhile")
	file := fs.String("json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}
	if err := program.RequireRoot(); err != nil {
		return err
	}

	o.figures = figure.NewWriter(*file)
	size, err := os.Stat(o.plugin)
	if err != nil {
		return err
	}
	megabytes := rounded(float64(size.Size()) / 1e6)
	limit := goal(fmt.Sprintf("%d MB", goalSize), megabytes <= goalSize)
	fmt.Fprintf(env.Stdout, "%s has %.1f MB; goal: %s\n", o.plugin, megabytes, limit)

	dir, err := os.MkdirTemp("", "cni-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := o.install(dir); err != nil {
		return err
	}

	const about = "%d rounds with %d pods present: p50 / p95 in ms, mean of the processor time\n"
	fmt.Fprintf(env.Stdout, about, o.rounds, o.present)
	if err := o.compareAll(ctx, env.Stdout); err != nil {
		return err
	}

	if strings.Contains(crowd, o.only) {
		if err := o.crowd(ctx, env.Stdout); err != nil {
			return fmt.Errorf("%s: %w", crowd, err)
		}
	}

	return o.figures.Close()
}

// goalSize is how many MB trivet-cni has at most.
const goalSize = 8

// compareAll runs the cases that are asked for.
func (o options) compareAll(ctx context.Context, out io.Writer) error {
	title := ""
	for _, c := range cases {
		if !strings.Contains(c.name, o.only) {
			continue
		}

		if c.title() != title {
			title = c.title()
			fmt.Fprintf(out, "\n%s:\n%s", title, caseHead)
		}
		if err := o.compare(ctx, out, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}

	return nil
}

// compare runs one case on both sides, in turns.
func (o options) compare(ctx context.Context, out io.Writer, c testCase) error {
	dir, err := os.MkdirTemp(o.dir, "cni-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	sides, err := o.sides(dir, c)
	for _, s := range sides {
		defer s.close()
	}
	if err != nil {
		return err
	}

	for _, s := range sides {
		if err := s.addAll(ctx, o.present); err != nil {
			return err
		}
	}

	for i := range o.rounds {
		for _, s := range inTurn(sides, i) {
			if err := s.measure(ctx, o.present+i); err != nil {
				return err
			}
		}
	}

	// Plugins keep records outside of the directory.
	for _, s := range sides {
		for i := range o.present {
			if _, err := s.del(ctx, i); err != nil {
				return err
			}
		}
	}

	report(out, o.figures, c, sides)
	return nil
}

// inTurn returns the sides in the order of a round, which is that of the round before in reverse: while one
// is measured, the kernel takes apart the namespace of the one before.
func inTurn(sides []*side, round int) []*side {
	order := slices.Clone(sides)
	if round%2 == 1 {
		slices.Reverse(order)
	}
	return order
}

// sides are who is measured: trivet-cni first.
func (o options) sides(dir string, c testCase) (sides []*side, err error) {
	for name, plugin := range o.own() {
		own, err := newOwn(name, plugin, filepath.Join(dir, name), c)
		if err != nil {
			return sides, err
		}
		sides = append(sides, own)
	}

	if c.upstream != "" {
		dir := filepath.Join(dir, "theirs")
		theirs, err := newSide("upstream plugins", dir, c.upstream, "", o.upstream, c.ports)
		if err != nil {
			return sides, err
		}
		sides = append(sides, theirs)
	}

	if c.floor != "" {
		list := `{"cniVersion":"1.0.0","name":"bench","plugins":[{"type":"` + c.floor + `","dataDir":%q%s}]}`
		dir := filepath.Join(dir, "floor")
		floor, err := newSide(bare, dir, list, "", filepath.Dir(o.floor), 0)
		if err != nil {
			return sides, err
		}
		sides = append(sides, floor)
	}

	return sides, nil
}

// Names of sides.
const (
	// bare is the side of cni-floor.
	bare = "bare netlink"
	// earlier is that of the other trivet-cni.
	earlier = "before"
)

// own are the sides of trivet-cni, with their programs.
func (o options) own() iter.Seq2[string, string] {
	return func(yield func(name, plugin string) bool) {
		if yield(figure.Ours, o.plugin) && o.before != "" {
			yield(earlier, o.before)
		}
	}
}

// newOwn returns the side of a trivet-cni.
func newOwn(name, plugin, dir string, c testCase) (*side, error) {
	if !c.byName {
		return newSide(name, dir, c.ours, bootScoped, filepath.Dir(plugin), c.ports)
	}

	names := filepath.Join(dir, "names")
	if err := link(names, plugin); err != nil {
		return nil, err
	}

	return newSide(name, dir, c.ours, "", names, c.ports)
}

// link makes a directory in which the names of upstream's plugins lead to a trivet-cni.
func link(dir, plugin string) error {
	plugin, err := filepath.Abs(plugin)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}

	for _, name := range []string{
		"bridge",
		"ptp",
		"host-local",
		"portmap",
		"firewall",
		"bandwidth",
		"tuning",
	} {
		if err := os.Symlink(plugin, filepath.Join(dir, name)); err != nil {
			return err
		}
	}

	return nil
}

func quantile(all []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}
