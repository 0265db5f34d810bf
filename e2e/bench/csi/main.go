// Command csi measures a trivet-csi binary over its socket: create, stage, publish, unpublish, unstage and
// delete alone and 16 at once, with few and with many volumes present; creations alone, beside what the disk
// does without a driver; a page of ListVolumes, the start, and the resident memory. It prints medians as a
// Markdown table. With --peer the calls are measured, in turns, of another driver that listens on a socket
// already.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"

	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
)

func main() { program.Main("bench-csi", run) }

func run(ctx context.Context, env *program.Env) (err error) {
	fs := env.Flags("Measures trivet-csi and prints medians. Needs root and some GiB of disk.")
	binary := fs.String("binary", "bin/trivet-csi", "the program to measure")
	dir := fs.String("dir", "", "directory for its volumes (default: a temporary one)")
	peer := fs.String("peer",
		"", "socket of a running driver to compare with; best started in a mount namespace of its own")
	many := fs.Int("volumes", 5000, "how many volumes are present in the second half")
	byKind := fs.Bool("kinds", false,
		"compare the ways in which volumes are held instead: their calls, copies, and random writes")
	file := fs.String("json", "", figure.FlagUsage)
	if err := env.Parse(fs); err != nil {
		return err
	}

	if *dir == "" {
		if *dir, err = os.MkdirTemp("", "bench"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(*dir)) }()
	}

	b := &bench{driver: driver{name: "trivet-csi", side: figure.Ours, dir: *dir}, binary: *binary}
	if b.state, err = os.MkdirTemp("/dev/shm", "bench"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.state)) }()

	if err := b.start(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.stop()) }()

	if *byKind {
		return b.compareKinds(ctx, env)
	}

	drivers := []*driver{&b.driver}
	if *peer != "" {
		other, err := connect(ctx, *peer, *dir)
		if err != nil {
			return err
		}
		defer other.conn.Close()

		drivers = append(drivers, other)
	}

	figures := figure.NewWriter(*file)
	if err := compare(ctx, env, figures, drivers, *many); err != nil {
		return err
	}
	if err := b.floor(ctx, env, figures); err != nil {
		return err
	}
	if err := b.rest(ctx, env, figures); err != nil {
		return err
	}

	return figures.Close()
}

// compare measures the drivers in turns, so that what else happens on the machine hits all of them.
func compare(
	ctx context.Context, env *program.Env, figures *figure.Writer, drivers []*driver, many int,
) error {
	fmt.Fprintln(
		env.Stdout,
		"| driver | volumes | at once | create | stage | publish | unpublish | unstage | delete | lives/s "+
			"|\n|---|---|---|---|---|---|---|---|---|---|",
	)

	for _, c := range []load{
		{0, 1, 200},
		{0, 16, 800},
		{many, 1, 200},
		{many, 16, 800},
	} {
		for _, d := range drivers {
			if err := d.fill(ctx, c.present); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}

		for _, d := range drivers {
			took, err := d.measure(ctx, env, c)
			if err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}

			figures.Add(figuresOf(d, c, took)...)
		}
	}

	return nil
}

// driver is a CSI driver behind a socket.
type driver struct {
	name   string
	side   string // in figures
	dir    string // beneath kubelet/ in it volumes are staged and published
	conn   *grpc.ClientConn
	filled int
}

// connect connects to a driver that runs already.
func connect(ctx context.Context, socketPath, dir string) (*driver, error) {
	conn, err := socket.Dial(socketPath)
	if err != nil {
		return nil, err
	}

	info, err := csi.NewIdentityClient(conn).GetPluginInfo(ctx, &csi.GetPluginInfoRequest{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("peer at %s: %w", socketPath, err), conn.Close())
	}

	name := info.GetName()
	return &driver{
		name: name,
		side: name,
		dir:  filepath.Join(dir, "peer"),
		conn: conn,
	}, nil
}

// bench is the driver that is started here.
type bench struct {
	driver
	binary string
	state  string // on a tmpfs, as /run is
	cmd    *exec.Cmd
}

// start runs the program in a mount namespace of its own and waits until it answers.
func (b *bench) start(ctx context.Context) error {
	b.cmd = exec.CommandContext(
		ctx,
		b.binary,
		"--endpoint=unix://"+b.dir+"/csi.sock",
		"--node-name=bench",
		"--data-dir="+b.dir+"/data",
		"--state-dir="+b.state,
		"--kubelet-dir="+b.dir+"/kubelet",
		"--registration-dir=",
		"--pool-size=20Gi",
		"--log-level=error",
	)

	b.cmd.Stderr = os.Stderr
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if err := b.cmd.Start(); err != nil {
		return err
	}

	// A client that finds no socket tries again after a second: there has to be one before it is asked.
	path := b.dir + "/csi.sock"
	for range retry.Every(ctx, time.Millisecond) {
		if socket.Alive(path) {
			break
		}
	}

	var err error
	if b.conn, err = socket.Dial(path); err != nil {
		return err
	}
	_, err = csi.NewIdentityClient(b.conn).Probe(ctx, &csi.ProbeRequest{}, grpc.WaitForReady(true))
	return err
}

func (b *bench) stop() error {
	b.conn.Close()
	return errors.Join(b.cmd.Process.Signal(syscall.SIGTERM), b.cmd.Wait())
}

// fill brings the number of volumes that are just there to n.
func (d *driver) fill(ctx context.Context, n int) error {
	return inParallel(16, n-d.filled, func(int) error {
		_, err := d.create(ctx, fmt.Sprintf("present-%d-%d", n, time.Now().UnixNano()))
		d.filled = n
		return err
	})
}

func inParallel(workers, n int, f func(i int) error) error {
	if n <= 0 {
		return nil
	}

	var group sync.WaitGroup
	var next atomic.Int64
	var once sync.Once
	var failure error
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				if err := f(i); err != nil {
					once.Do(func() { failure = err })

					// The others stop, too.
					next.Store(int64(n))
				}
			}
		})
	}

	group.Wait()
	return failure
}

// load is under what the calls are measured.
type load struct {
	present int // volumes
	atOnce  int // calls
	lives   int // of volumes, from creation to deletion
}

// figuresOf has a figure for each step of a volume's life.
func figuresOf(d *driver, l load, took map[string][]time.Duration) []figure.Figure {
	var all []figure.Figure
	for _, step := range steps {
		what := fmt.Sprintf("%s, %d volumes present, %d at once", step.name, l.present, l.atOnce)
		all = append(all, figure.Of("csi", what, d.side, took[step.name]))
	}
	return all
}

// measure takes volumes through their lives, prints medians, and returns how long each step took.
func (d *driver) measure(ctx context.Context, env *program.Env, l load) (map[string][]time.Duration, error) {
	var mu sync.Mutex
	took := map[string][]time.Duration{}
	began := time.Now()
	err := inParallel(l.atOnce, l.lives, func(i int) error {
		times, err := d.life(ctx, fmt.Sprintf("life-%d-%d-%d", l.present, l.atOnce, i))
		mu.Lock()
		defer mu.Unlock()

		for step, t := range times {
			took[steps[step].name] = append(took[steps[step].name], t)
		}

		return err
	})
	if err != nil {
		return nil, err
	}

	row := []string{d.name, fmt.Sprint(l.present), fmt.Sprint(l.atOnce)}
	for _, step := range steps {
		slices.Sort(took[step.name])
		median := took[step.name][len(took[step.name])/2]
		row = append(row, fmt.Sprintf("%.2f ms", median.Seconds()*1000))
	}

	row = append(row, fmt.Sprintf("%.0f", float64(l.lives)/time.Since(began).Seconds()))
	_, err = fmt.Fprintf(env.Stdout, "| %s |\n", strings.Join(row, " | "))
	return took, err
}
