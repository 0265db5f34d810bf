package seats

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
	"github.com/trivet-node/trivet/e2e/specs/subject"
)

// Run tries cells.
type Run struct {
	// Root is the checkout, in which everything is built; Dir the state of the clusters. Both are absolute.
	Root string
	Dir  string

	// Pods is how many are measured, one by one.
	Pods int

	// Metrics says that the demo shows kubectl top, too, for which metrics-server asks the node.
	Metrics bool

	Out io.Writer
}

// Scenarios are the tests of package scenario that a cell runs: of what a program leaves to its neighbours,
// and to its next start, when it ends. CI runs one cell, so they are few.
var Scenarios = []string{
	"TestAgentKilledWhilePodsStart",
	"TestCRIServerKilled",
	"TestPodsLiveOnWhileTheAPIServerIsDead",
	"TestDaemonsAreUpgradedUnderThirtyPods",
	"TestNodeRebooted",
}

// downLimit bounds how long it takes until a cluster is down.
const downLimit = 2 * time.Minute

// Cell tries one, on a cluster that is brought up for it and taken down again. What failed is in the result,
// wherever that was; an error means that ctx has ended and there is no result.
func (r Run) Cell(ctx context.Context, s seat.Seats) (Result, error) {
	result := Result{
		Cell:    Name(s),
		Commit:  subject.Commit(ctx, r.Root),
		Date:    time.Now().UTC().Format(time.DateOnly),
		Machine: subject.Host(),
		Demo:    "it was not run",
	}

	err := r.try(ctx, s, &result)
	if err != nil || result.err() != nil {
		err = errors.Join(err, r.keepLogs(s))
	}

	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), downLimit)
	defer cancel()

	err = errors.Join(err, r.cluster(ending, "down"), r.cluster(ending, "leaks", "--wait=30s"))
	if err != nil {
		result.Trouble = err.Error()
	}

	return result, ctx.Err()
}

// try tries a cell. An error is of what kept the rest of it from being tried.
func (r Run) try(ctx context.Context, s seat.Seats, result *Result) error {
	if err := r.cluster(ctx, "down"); err != nil {
		return err
	}
	if err := r.cluster(ctx, "up", flags(s)...); err != nil {
		return err
	}
	if err := r.measure(ctx, result); err != nil {
		return fmt.Errorf("pods are not measured: %w", err)
	}
	if err := r.scenarios(ctx, s, result); err != nil {
		return err
	}

	result.Demo = ""
	if err := r.demo(ctx); err != nil {
		result.Demo = err.Error()
	}

	return nil
}

// demo shows the demo, with all that it needs.
func (r Run) demo(ctx context.Context) error {
	if r.Metrics {
		if err := r.cluster(ctx, "install", "metrics-server"); err != nil {
			return err
		}
	}
	return r.cluster(ctx, "demo")
}

// Err is what went wrong in a cell, with its name.
func (r Result) Err() error {
	if err := r.err(); err != nil {
		return fmt.Errorf("%s: %w", r.Cell, err)
	}
	return nil
}

// cluster runs trivet-cluster for the cluster in Dir.
func (r Run) cluster(ctx context.Context, verb string, args ...string) error {
	line := append([]string{verb, "--dir=" + r.Dir}, args...)
	cmd := exec.CommandContext(ctx, filepath.Join(r.Root, "bin/trivet-cluster"), line...)
	cmd.Dir = r.Root
	cmd.Stdout = r.Out
	var said strings.Builder
	cmd.Stderr = io.MultiWriter(r.Out, &said)

	// Ctrl-C is for this process, which then has the cluster taken down.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = downLimit
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("trivet-cluster %s: %w: %s", verb, err, strings.TrimSpace(said.String()))
	}

	return nil
}

// measure runs single pods through their lives.
func (r Run) measure(ctx context.Context, result *Result) error {
	client, err := bench.Connect(filepath.Join(r.Dir, "kubeconfig"))
	if err != nil {
		return err
	}

	const node = "node1"
	b := &bench.Bench{
		Client:    client,
		Namespace: "bench",
		Image:     "registry.k8s.io/pause:3.10.2",
	}
	if err := b.Prepare(ctx, []string{node}); err != nil {
		return err
	}

	var ready, gone []time.Duration
	for i := range r.Pods {
		s, err := b.One(ctx, node, fmt.Sprint("pod-", i))
		if err != nil {
			return err
		}

		ready, gone = append(ready, s.ToReady), append(gone, s.ToGone)
	}

	result.Load = load()
	result.Ready, result.Gone = sumUp(ready), sumUp(gone)
	fmt.Fprintf(r.Out, "a pod is Ready after %.1f ms, gone after %.1f ms (%d pods, load %.1f)\n",
		result.Ready.Median, result.Gone.Median, r.Pods, result.Load)
	return b.Clean(ctx)
}

// load is the load average of the last minute.
func load() float64 {
	var one float64
	text, _ := os.ReadFile("/proc/loadavg")
	_, _ = fmt.Sscan(string(text), &one)
	return one
}

// scenarios runs the tests of a cell.
func (r Run) scenarios(ctx context.Context, s seat.Seats, result *Result) error {
	log, err := os.Create(r.logFile(s))
	if err != nil {
		return err
	}
	defer log.Close()

	verdicts := &verdicts{out: r.Out}
	cmd := exec.CommandContext(ctx, filepath.Join(r.Root, "bin/scenario.test"),
		"-test.v", "-test.timeout=30m", "-test.run=^("+strings.Join(Scenarios, "|")+")$")
	cmd.Dir = filepath.Join(r.Root, "e2e/scenario")
	cmd.Env = append(os.Environ(), "TRIVET_E2E="+r.Dir, "TRIVET_MUST_RUN=1")
	cmd.Stdout, cmd.Stderr = io.MultiWriter(log, verdicts), log

	// Which tests failed is in what it prints.
	runErr := cmd.Run()
	result.Passed, result.Failed, result.Skipped = verdicts.passed, verdicts.failed, verdicts.skipped
	if runErr != nil && len(verdicts.failed) == 0 {
		return fmt.Errorf("%s: %w; its output is in %s", filepath.Base(cmd.Path), runErr, log.Name())
	}

	return ctx.Err()
}

func (r Run) logFile(s seat.Seats) string {
	return filepath.Join(r.Dir, strings.ReplaceAll(Name(s), " ", "-")+".log")
}

// keepLogs copies the logs of all daemons out of the directory that goes with the cluster.
func (r Run) keepLogs(s seat.Seats) error {
	machines, err := filepath.Glob(filepath.Join(r.Dir, "machines", "*"))
	if err != nil {
		return err
	}

	to := strings.TrimSuffix(r.logFile(s), ".log")
	errs := []error{os.RemoveAll(to)}
	for _, dir := range machines {
		m := machine.At(dir)
		errs = append(errs, os.CopyFS(filepath.Join(to, m.Name), os.DirFS(filepath.Join(dir, "log"))))
	}

	fmt.Fprintf(r.Out, "the logs of all daemons are in %s\n", to)
	return errors.Join(errs...)
}
