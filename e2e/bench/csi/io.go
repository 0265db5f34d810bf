package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/bench/csi/report"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/internal/program"
)

// pattern is how fio reads or writes a file.
type pattern struct {
	report.Pattern
	args []string
}

// patterns are in the order in which they are run: the first makes the file. What is random runs for some
// seconds, the others once through the file.
var patterns = []pattern{
	{report.SequentialWrites, []string{"--rw=write", "--bs=1M", "--end_fsync=1"}},
	{report.RandomWrites, []string{
		"--rw=randwrite", "--bs=4k", "--fdatasync=1", "--time_based", "--runtime=5",
	}},
	{report.DirectWrites, []string{"--rw=write", "--bs=1M", "--direct=1", "--end_fsync=1"}},
	{report.SequentialReads, []string{"--rw=read", "--bs=1M"}},
}

// bareLoop is what the kernel's loop driver does alone: a device over a file that has all its blocks on the
// disk, which is what the pool and all images are on.
const bareLoop = "a loop device alone"

// compareIO measures input and output in volumes of each kind, each pattern right after the same on the disk
// that the driver's directory is on. A pass that reads has nothing in memory before: the page cache of the
// machine is dropped.
func (b *bench) compareIO(ctx context.Context, env *program.Env, figures *figure.Writer) error {
	if _, err := exec.LookPath("fio"); err != nil {
		_, err := fmt.Fprintln(env.Stdout, "\nNo input and output: there is no fio (Debian package fio).")
		return err
	}

	disk := filepath.Join(b.dir, "bare")
	defer os.Remove(disk)

	heads := []string{""}
	for _, p := range patterns {
		heads = append(heads, p.Name, "bare disk", "")
	}
	heads = append(heads, "random after a snapshot")
	line := strings.Repeat("---|", len(heads))
	fmt.Fprintf(env.Stdout, "\n| %s |\n|%s\n", strings.Join(heads, " | "), line)

	err := b.ofEachKind(ctx, env, func(k kind) error {
		return b.exchange(ctx, env, k, disk, figures)
	})
	if err != nil || !strings.HasPrefix(bareLoop, b.options.kinds) {
		return err
	}
	return b.exchangeLoop(ctx, env, disk, figures)
}

// exchangeLoop measures a loop device that nothing of the driver is on, attached as those of the driver are.
func (b *bench) exchangeLoop(
	ctx context.Context, env *program.Env, disk string, figures *figure.Writer,
) (err error) {
	file := filepath.Join(b.dir, "loop")
	defer os.Remove(file)
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, b.options.ioSize), f.Close())
	if err != nil {
		return err
	}

	args := []string{"--find", "--show", "--direct-io=on", file}
	out, err := exec.CommandContext(ctx, "losetup", args...).Output()
	if err != nil {
		return fmt.Errorf("losetup: %w", err)
	}

	// One that is detached while it is open goes when it is closed, however this process ends.
	path := strings.TrimSpace(string(out))
	device, err := os.Open(path)
	if err := errors.Join(err, exec.Command("losetup", "--detach", path).Run()); err != nil {
		return fmt.Errorf("losetup --detach %s: %w", path, err)
	}
	defer device.Close()

	cells, err := b.beside(ctx, bareLoop, path, disk, figures)
	if err == nil {
		fmt.Fprintf(env.Stdout, "| %s | - |\n", strings.Join(cells, " | "))
	}
	return err
}

// beside measures all patterns on a path, each right after the same on the disk.
func (b *bench) beside(
	ctx context.Context, name, path, disk string, figures *figure.Writer,
) (cells []string, err error) {
	cells = []string{name}
	for _, p := range patterns {
		bare, errBare := b.fio(ctx, disk, p)
		here, errHere := b.fio(ctx, path, p)
		if err := errors.Join(errBare, errHere); err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}

		cells = append(cells, fmt.Sprintf("%.0f %s | %.0f | %.2f", here, p.Unit, bare, here/bare))
		figures.Add(p.Figure(name, b.side, here), p.Figure(name, report.Disk, bare))
	}
	return cells, nil
}

// exchange measures a volume of a kind.
func (b *bench) exchange(
	ctx context.Context, env *program.Env, k kind, disk string, figures *figure.Writer,
) (err error) {
	// What copies on write needs room for the whole file once more, until its old blocks are free.
	v := b.volume("io", k, 2*b.options.ioSize+kindSize/4)
	defer func() { err = errors.Join(err, v.disappear(ctx)) }()
	if err := v.appear(ctx); err != nil {
		return err
	}

	cells, err := b.beside(ctx, k.name, b.file(v), disk, figures)
	if err != nil {
		return err
	}

	after, err := b.afterSnapshot(ctx, v)
	fmt.Fprintf(env.Stdout, "| %s | %s |\n", strings.Join(cells, " | "), after)
	return err
}

// afterSnapshot writes over what a snapshot has, too.
func (b *bench) afterSnapshot(ctx context.Context, v *volume) (rate string, err error) {
	id, err := v.snapshot(ctx, "io")
	if isRefused(err) {
		return "-", nil
	}
	if err != nil {
		return "", err
	}

	p := patterns[1]
	writes, err := b.fio(ctx, b.file(v), p)
	return fmt.Sprintf("%.0f %s", writes, p.Unit), errors.Join(err, v.deleteSnapshot(ctx, id))
}

// fio runs a pattern on a file or device, and returns operations or MiB a second.
func (b *bench) fio(ctx context.Context, path string, p pattern) (float64, error) {
	unix.Sync()
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("1"), 0); err != nil {
		return 0, err
	}

	args := append([]string{
		"--name=bench",
		"--filename=" + path,
		fmt.Sprintf("--size=%d", b.options.ioSize),
		"--ioengine=psync",
		"--output-format=json",
	}, p.args...)
	out, err := exec.CommandContext(ctx, "fio", args...).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("fio %s: %w: %s", strings.Join(args, " "), err, out)
	}

	// What it has to say goes before.
	var result struct {
		Jobs []struct{ Read, Write struct{ IOPS, BW float64 } }
	}
	if at := bytes.IndexByte(out, '{'); at > 0 {
		out = out[at:]
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return 0, fmt.Errorf("what fio says: %w: %s", err, out)
	}
	if len(result.Jobs) != 1 {
		return 0, fmt.Errorf("fio has %d jobs: %s", len(result.Jobs), out)
	}

	job := result.Jobs[0]
	if p.Unit == report.PerSecond {
		return job.Read.IOPS + job.Write.IOPS, nil
	}
	return (job.Read.BW + job.Write.BW) / 1024, nil
}
