package monitor_test

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/daemon"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/testenv"
)

// asMonitor is set in the environment when a Client starts the test binary in place of trivet-monitor, which
// would refuse to run without root.
const asMonitor = "MONITOR_TEST_AS_MONITOR"

func TestMain(m *testing.M) {
	if os.Getenv(asMonitor) == "" {
		os.Exit(monitortest.Main(m))
	}
	if err := runMonitor(); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

// runMonitor is trivet-monitor with the flags that a Client gives it.
func runMonitor() error {
	cfg := daemon.Config{Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flags := flag.NewFlagSet("monitor", flag.ContinueOnError)
	flags.StringVar(&cfg.Socket, "socket", "", "")
	flags.StringVar(&cfg.StateDir, "state-dir", "", "")
	ready := flags.Int("ready-fd", -1, "")
	if err := flags.Parse(os.Args[1:]); err != nil {
		return err
	}

	cfg.Ready = func() {
		f := os.NewFile(uintptr(*ready), "ready")
		f.WriteString("ready\n")
		f.Close()
	}

	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()

	return daemon.Run(ctx, cfg)
}

// rootless is a monitor and an OCI runtime that need no root.
type rootless struct {
	dir     string
	cfg     monitor.Config
	runtime ociruntime.Runtime
}

func newRootless(t *testing.T) *rootless {
	t.Helper()
	t.Setenv(asMonitor, "1")
	dir := testenv.ShortDir(t)
	r := &rootless{
		dir: dir,
		cfg: monitor.Config{
			Socket:   filepath.Join(dir, "m.sock"),
			StateDir: filepath.Join(dir, "state"),
			Program:  os.Args[0],
			LogFile:  filepath.Join(dir, "monitor.log"),
			Log:      slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
		runtime: monitortest.FakeRuntime(t, dir),
	}

	t.Cleanup(func() { monitortest.KillMonitor(t, r.cfg.Socket) })
	return r
}

// connect returns a Client that lives as long as the test. What a context limits otherwise is its end.
func (r *rootless) connect(t *testing.T) *monitor.Client {
	t.Helper()
	c, err := monitor.Connect(t.Context(), r.cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// create makes a container that runs a shell script once it is started. It is deleted at the end of the test.
func (r *rootless) create(
	t *testing.T, c *monitor.Client, id, script string, change ...func(*monitor.Container),
) monitor.Container {
	t.Helper()
	want := monitor.Container{
		ID:      id,
		Bundle:  monitortest.FakeBundle(t, filepath.Join(r.dir, "bundle-"+id), script),
		Runtime: r.runtime,
		LogPath: filepath.Join(r.dir, "logs", id+".log"),
	}

	for _, f := range change {
		f(&want)
	}

	pid, err := c.Create(t.Context(), want)
	if err != nil || pid <= 1 {
		t.Fatalf("create container %s: pid %d, %v", id, pid, err)
	}

	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 20*time.Second)
		defer cancel()

		if err := c.Delete(ctx, id); err != nil {
			t.Error(err)
		}
	})

	return want
}

func withStdin(c *monitor.Container) {
	c.Stdin = true
	c.StdinOnce = true
}

func startIt(t *testing.T, c *monitor.Client, id string) {
	t.Helper()
	if err := c.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestAContainersLife(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	want := r.create(t, c, "a", "echo hello; exit 6")
	if started, err := c.Started(t.Context(), "a"); started || err != nil {
		t.Errorf("started before its start: %t, %v", started, err)
	}
	if !c.Lives("a") || len(c.List()) != 1 || c.List()[0].LogPath != want.LogPath {
		t.Errorf("lives %t, list %+v", c.Lives("a"), c.List())
	}

	startIt(t, c, "a")
	exit, err := c.Wait(t.Context(), "a")
	if err != nil || exit.Code != 6 {
		t.Errorf("exit %+v, %v; want code 6", exit, err)
	}
	if reported := <-c.Exits(); reported != exit {
		t.Errorf("Exits gave %+v, Wait %+v", reported, exit)
	}
	if c.Lives("a") {
		t.Error("it lives after its exit")
	}
	if err := c.Kill("a", unix.SIGTERM); err != nil {
		t.Errorf("signal after the exit: %v", err)
	}
	if got := monitortest.LogText(t, want.LogPath, "stdout"); got != "hello\n" {
		t.Errorf("log %q", got)
	}

	if err := c.Delete(t.Context(), "a"); err != nil || len(c.List()) > 0 {
		t.Errorf("delete: %v; left are %v", err, c.List())
	}
}

func TestAStartOfARunningContainerIsSuccess(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	r.create(t, c, "a", "exec sleep 1000")
	startIt(t, c, "a")
	startIt(t, c, "a")
	if started, err := c.Started(t.Context(), "a"); !started || err != nil {
		t.Errorf("started: %t, %v", started, err)
	}

	if err := c.Kill("a", unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if exit, err := c.Wait(t.Context(), "a"); err != nil || exit.Signal != unix.SIGTERM {
		t.Errorf("exit %+v, %v; want one by SIGTERM", exit, err)
	}
}

func TestTheClientStartsAKilledMonitorAgain(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	want := r.create(t, c, "a", "echo one; read line; echo $line; exit 5", withStdin)
	startIt(t, c, "a")
	monitortest.KillMonitor(t, r.cfg.Socket)

	err := c.Attach(t.Context(), "a", monitor.Streams{Stdin: strings.NewReader("two\n")})
	if err != nil {
		t.Errorf("attach through the next monitor: %v", err)
	}

	exit, err := c.Wait(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	if unknown := !monitortest.KernelKeepsExits(t); exit.Unknown != unknown || !unknown && exit.Code != 5 {
		t.Errorf("exit %+v, want code 5 where the kernel keeps it", exit)
	}
	if got := monitortest.LogText(t, want.LogPath, "stdout"); got != "one\ntwo\n" {
		t.Errorf("log %q", got)
	}
}

func TestExitsFromBeforeAConnectionWaitForIt(t *testing.T) {
	r := newRootless(t)
	first := r.connect(t)
	r.create(t, first, "a", "exit 3")
	startIt(t, first, "a")
	<-first.Exits()

	second := r.connect(t)
	if exit := <-second.Exits(); exit.ID != "a" || exit.Code != 3 {
		t.Errorf("exit %+v, want code 3 of container a", exit)
	}

	second.Close()
	if _, ok := <-second.Exits(); ok {
		t.Error("Exits goes on after Close")
	}
}

func TestWhatCannotBeDoneSaysWhy(t *testing.T) {
	r := newRootless(t)
	c := r.connect(t)
	for name, err := range map[string]error{
		"start":  c.Start(t.Context(), "missing"),
		"update": c.Update(t.Context(), "missing", nil),
		"kill":   c.Kill("missing", unix.SIGTERM),
		"resize": c.Resize("missing", 80, 25),
		"reopen": c.ReopenLog(t.Context(), "missing"),
		"attach": c.Attach(t.Context(), "missing", monitor.Streams{}),
	} {
		if !errors.Is(err, monitor.ErrNotFound) {
			t.Errorf("%s of a container that is not there: %v", name, err)
		}
	}

	if err := c.Delete(t.Context(), "missing"); err != nil {
		t.Errorf("delete of a container that is not there: %v", err)
	}

	r.create(t, c, "a", "exit 0")
	if err := c.Resize("a", 80, 25); err == nil {
		t.Error("a container without a terminal was resized")
	}
	if err := c.Attach(t.Context(), "a", monitor.Streams{Stdin: strings.NewReader("x")}); err == nil {
		t.Error("stdin was attached to a container without stdin")
	}
}

func TestADismissedMonitorIsNotStartedAgain(t *testing.T) {
	r := newRootless(t)
	if err := monitor.Dismiss(t.Context(), r.cfg.Socket); err != nil {
		t.Errorf("without a monitor: %v", err)
	}

	c := r.connect(t)
	if err := monitor.Dismiss(t.Context(), r.cfg.Socket); err != nil {
		t.Fatal(err)
	}

	<-c.Dismissed()
	if err := c.ReopenLog(t.Context(), "a"); err == nil {
		t.Error("a request to a monitor that was dismissed succeeded")
	}
	if pid := monitortest.Pid(r.cfg.Socket); pid != 0 {
		t.Errorf("process %d serves the socket", pid)
	}
}

func TestAMonitorThatDoesNotStartSaysWhy(t *testing.T) {
	r := newRootless(t)
	r.cfg.Program = filepath.Join(r.dir, "missing")
	if _, err := monitor.Connect(t.Context(), r.cfg); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a program that does not exist: %v", err)
	}
	r.cfg.Program = os.Args[0]
	r.cfg.Args = []string{"--no-such-flag"}
	_, err := monitor.Connect(t.Context(), r.cfg)
	if err == nil || !strings.Contains(err.Error(), "did not start") {
		t.Errorf("a monitor that ends at once: %v", err)
	}
}
