// Command cni-bench measures ADD and DEL of trivet-cni beside upstream's bridge, host-local and portmap, by
// libcni, as a runtime calls them: each in a network namespace of its own that stands for the host's, in
// turns. Nothing touches the network of this machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/containernetworking/cni/libcni"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/namespace"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `cni-bench measures the CNI operations ADD and DEL of trivet-cni beside those of upstream's
plugins, both called by libcni.`

func main() { program.Main("cni-bench", run) }

type options struct {
	plugin, upstream string
	rounds, present  int
	figures          *figure.Writer
}

func run(ctx context.Context, env *program.Env) error {
	var o options
	fs := env.Flags(about)
	fs.StringVar(&o.plugin, "plugin", "bin/trivet-cni", "trivet-cni")
	fs.StringVar(&o.upstream, "upstream", ".trivet/bin/cni", "directory of upstream's plugins")
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
	fmt.Fprintf(env.Stdout, "%d rounds with %d pods present, p50/p95 in ms\n", o.rounds, o.present)
	for _, c := range cases {
		if err := o.compare(ctx, env.Stdout, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}

	return o.figures.Close()
}

// compare runs one case on both sides, in turns.
func (o options) compare(ctx context.Context, out io.Writer, c testCase) error {
	dir, err := os.MkdirTemp("", "cni-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()

	ours, err := o.ours(dir, c)
	if err != nil {
		return err
	}
	defer ours.close()

	theirs, err := newSide(filepath.Join(dir, "theirs"), c.upstream, "", o.upstream, c.ports)
	if err != nil {
		return err
	}
	defer theirs.close()

	sides := []*side{ours, theirs}
	for _, s := range sides {
		for i := range o.present {
			if _, err := s.add(ctx, i); err != nil {
				return err
			}
		}
	}

	for i := range o.rounds {
		for _, s := range sides {
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

	report(out, o.figures, c.name, sides)
	return nil
}

// report prints the figures of a case, and writes them.
func report(out io.Writer, figures *figure.Writer, name string, sides []*side) {
	fmt.Fprintf(out, "\n%s\n", name)
	for n, what := range []string{"ADD", "DEL"} {
		a, b := sides[0].took[n], sides[1].took[n]
		figures.Add(
			figure.Of("cni", name+": "+what, figure.Ours, a),
			figure.Of("cni", name+": "+what, "upstream plugins", b))
		fmt.Fprintf(
			out,
			"  %s  trivet-cni %s   upstream %s   ratio 1/%.1f\n",
			what,
			spread(a),
			spread(b),
			float64(quantile(b, 50))/float64(quantile(a, 50)),
		)
	}
}

// ours is the side of trivet-cni.
func (o options) ours(dir string, c testCase) (*side, error) {
	side := filepath.Join(dir, "ours")
	if !c.byName {
		return newSide(side, c.ours, bootScoped, filepath.Dir(o.plugin), c.ports)
	}

	plugins, err := o.link(filepath.Join(dir, "names"))
	if err != nil {
		return nil, err
	}

	return newSide(side, c.ours, "", plugins, c.ports)
}

// link makes a directory in which the names of upstream's plugins lead to trivet-cni.
func (o options) link(dir string) (string, error) {
	plugin, err := filepath.Abs(o.plugin)
	if err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
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
			return "", err
		}
	}

	return dir, nil
}

// side is one plugin set with a host of its own.
type side struct {
	dir, host string
	list      *libcni.NetworkConfigList
	cni       *libcni.CNIConfig
	ports     bool
	took      [2][]time.Duration // ADD, DEL
}

func newSide(dir, list, extra, plugins string, ports bool) (*side, error) {
	s := &side{dir: dir, host: filepath.Join(dir, "host"), ports: ports}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	text := fmt.Appendf(nil, list, filepath.Join(dir, "data"), extra)
	var err error
	if s.list, err = libcni.ConfListFromBytes(text); err != nil {
		return nil, err
	}
	if plugins, err = filepath.Abs(plugins); err != nil {
		return nil, err
	}

	s.cni = libcni.NewCNIConfigWithCacheDir([]string{plugins}, filepath.Join(dir, "cache"), nil)
	return s, namespace.Create(map[namespace.Kind]string{namespace.Net: s.host}, nil)
}

func (s *side) close() {
	pins, _ := filepath.Glob(filepath.Join(s.dir, "pod-*"))
	for _, pin := range append(pins, s.host) {
		if err := namespace.Unpin(pin); err != nil {
			fmt.Fprintln(os.Stderr, "cni-bench:", err)
		}
	}
}

func (s *side) attachment(i int) *libcni.RuntimeConf {
	rt := &libcni.RuntimeConf{
		ContainerID: fmt.Sprintf("pod-%d", i),
		NetNS:       filepath.Join(s.dir, fmt.Sprintf("pod-%d", i)),
		IfName:      "eth0",
	}
	if s.ports {
		rt.CapabilityArgs = map[string]any{"portMappings": []map[string]any{
			{
				"hostPort":      10000 + 2*i,
				"containerPort": 80,
				"protocol":      "tcp",
			}, {"hostPort": 10001 + 2*i, "containerPort": 443, "protocol": "tcp"},
		}}
	}

	return rt
}

// add makes a pod's namespace and attaches it; the time is that of the ADD alone.
func (s *side) add(ctx context.Context, i int) (took time.Duration, err error) {
	rt := s.attachment(i)
	if err := namespace.Create(map[namespace.Kind]string{namespace.Net: rt.NetNS}, nil); err != nil {
		return 0, err
	}

	// Plugins inherit the namespace that stands for the host's from the thread.
	err = namespace.Do(func() error {
		start := time.Now()
		_, err := s.cni.AddNetworkList(ctx, s.list, rt)
		took = time.Since(start)
		return err
	}, s.host)

	return took, err
}

func (s *side) measure(ctx context.Context, i int) error {
	added, err := s.add(ctx, i)
	if err != nil {
		return err
	}

	deleted, err := s.del(ctx, i)
	s.took[0], s.took[1] = append(s.took[0], added), append(s.took[1], deleted)
	return err
}

// del deletes a pod and its namespace; the time is that of the DEL alone.
func (s *side) del(ctx context.Context, i int) (took time.Duration, err error) {
	rt := s.attachment(i)
	err = namespace.Do(func() error {
		start := time.Now()
		err := s.cni.DelNetworkList(ctx, s.list, rt)
		took = time.Since(start)
		return err
	}, s.host)
	return took, errors.Join(err, namespace.Unpin(rt.NetNS))
}

func quantile(all []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}

func spread(all []time.Duration) string {
	return fmt.Sprintf("%6.1f / %6.1f", quantile(all, 50).Seconds()*1000, quantile(all, 95).Seconds()*1000)
}
