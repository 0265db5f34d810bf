// Command pull-bench measures image pulls of trivet-cri beside containerd, both by CRI and in turns, from a
// registry on loopback. All of it runs on a machine made of namespaces, whose /var/lib is on this machine's
// disk. Nothing of this machine's own images is touched.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/internal/program"
)

const about = `pull-bench measures image pulls of trivet-cri beside containerd's: the same images from the
same registry, each removed after its pull, in turns, so that the noise of the host meets both alike. The disk
is synced before each pull.`

func main() { program.Main("pull-bench", run) }

type options struct {
	dir, programs, references, oci string
	rounds                         int
	json                           string
}

// registryAddress is on that machine.
const registryAddress = "127.0.0.1:5000"

func run(ctx context.Context, env *program.Env) error {
	if done, err := machine.Verb(ctx, env.Args); done {
		return err
	}

	var o options
	fs := env.Flags(about)
	fs.StringVar(
		&o.dir,
		"dir",
		".trivet/pull-bench",
		"directory for all that it writes, on the disk to measure; removed in the end",
	)

	fs.StringVar(&o.programs, "programs", "bin", "directory of trivet-cri, trivet-monitor and trivet-images")
	fs.StringVar(&o.references, "references", ".trivet/bin", "directory of containerd")
	fs.StringVar(&o.oci, "oci-runtime", "crun", "trivet-cri does not start without one")
	fs.IntVar(&o.rounds, "rounds", 9, "pulls of each image by each")
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
	list := catalog()
	if err := writeImages(filepath.Join(o.dir, "images"), registryAddress, list); err != nil {
		return err
	}

	sides, err := o.boot(ctx, m)
	if err != nil {
		return err
	}

	fmt.Fprintf(
		env.Stdout,
		"| %d pulls each, in turns | trivet-cri p50 (min, max) s | CPU s | containerd s | CPU s | ratio "+
			"of the medians |\n|---|---|---|---|---|---|\n",
		o.rounds,
	)

	figures := figure.NewWriter(o.json)
	for _, image := range list {
		took := map[*side]bench.Trials{}
		for range o.rounds {
			for _, s := range sides {
				p, err := s.pull(ctx, image.reference(registryAddress))
				if err != nil {
					return fmt.Errorf("%s: %w", s.program, err)
				}

				took[s] = append(took[s], p)
			}
		}

		ours, theirs := took[sides[0]], took[sides[1]]
		figures.Add(figuresOf(image.about, figure.Ours, ours)...)
		figures.Add(figuresOf(image.about, sides[1].program, theirs)...)
		fmt.Fprintf(
			env.Stdout,
			"| %s | %s | %s | 1/%.1f |\n",
			image.about,
			ours,
			theirs,
			bench.Median(theirs.Times()).Seconds()/bench.Median(ours.Times()).Seconds(),
		)
	}

	return figures.Close()
}

// boot starts the machine, the registry, and both CRI servers.
func (o options) boot(ctx context.Context, m *machine.Machine) ([]*side, error) {
	config := machine.Config{
		Name:  "pull-bench",
		Group: fmt.Sprintf("/trivet-pull-bench-%d", os.Getpid()),
		Hosts: "127.0.0.1 localhost\n",
		Keep: []string{
			"/var/lib/containerd", "/var/lib/trivet", "/var/lib/cni", "/etc/cni/net.d", "/etc/containerd",
		},
		Expose: map[string]string{o.dir: o.dir, o.programs: o.programs, o.references: o.references},
	}
	if err := m.Boot(ctx, config); err != nil {
		return nil, err
	}

	up, err := m.Command(ctx, "ip", "link", "set", "lo", "up")
	if err != nil {
		return nil, err
	}
	if out, err := up.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set lo up: %w: %s", err, out)
	}

	file := filepath.Join(o.dir, "containerd.toml")
	if err := os.WriteFile(file, []byte("version = 3\n"), 0o644); err != nil {
		return nil, err
	}

	for _, d := range []machine.Daemon{
		{
			Name: "registry",
			Argv: []string{
				o.programs + "/trivet-images",
				"serve",
				"--dir=" + o.dir + "/images",
				"--listen=" + registryAddress,
			},
		},
		{Name: "trivet-cri", Argv: []string{o.programs + "/trivet-cri", "--oci-runtime=" + o.oci}},
		{Name: "containerd", Argv: []string{o.references + "/containerd", "--config=" + file}},
	} {
		if err := m.Start(d); err != nil {
			return nil, err
		}
	}

	ours, err := connect(ctx, m, "trivet-cri", "/run/trivet/cri.sock")
	if err != nil {
		return nil, err
	}

	theirs, err := connect(ctx, m, "containerd", "/run/containerd/containerd.sock")
	return []*side{ours, theirs}, err
}

// side is one CRI server on the machine.
type side struct {
	machine *machine.Machine
	program string
	images  runtimeapi.ImageServiceClient
}

// connect waits until the server answers.
func connect(ctx context.Context, m *machine.Machine, program, path string) (*side, error) {
	conn, err := bench.AwaitCRI(ctx, m, path, bench.ListsImages)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", program, err)
	}
	return &side{machine: m, program: program, images: runtimeapi.NewImageServiceClient(conn)}, nil
}

// pull measures one pull and removes the image.
func (s *side) pull(ctx context.Context, reference string) (bench.Trial, error) {
	// What the other one wrote must not be this one's work.
	unix.Sync()
	image := &runtimeapi.ImageSpec{Image: reference}
	before, start := s.cpu(), time.Now()
	if _, err := s.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: image}); err != nil {
		return bench.Trial{}, err
	}
	p := bench.Trial{Took: time.Since(start), CPU: s.cpu() - before}
	_, err := s.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: image})
	return p, err
}

// cpu is the processor time of the server.
func (s *side) cpu() time.Duration { return bench.Clock(s.machine.Find(s.program)) }

// figuresOf are the time and the processor time of pulls of an image.
func figuresOf(image, side string, all bench.Trials) []figure.Figure {
	return []figure.Figure{
		figure.Of("pull", image, side, all.Times()),
		{
			Bench:  "pull",
			What:   image + ": processor time",
			Side:   side,
			Unit:   "s",
			Median: all.CPU().Seconds(),
			Count:  len(all),
		},
	}
}
