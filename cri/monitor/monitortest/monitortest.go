// Package monitortest gives tests a real trivet-monitor and OCI bundles with a busybox in them.
package monitortest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/pidfd"
	"github.com/trivet-node/trivet/cri/ociruntime"
	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// built is the directory of the program that Main has built for all tests of the process.
var built string

// Main builds trivet-monitor, runs the tests, cleans up, and returns the exit code. Call it from TestMain.
func Main(m *testing.M) int {
	return testenv.InOwnMounts(func() int { return buildAndRun(m) })
}

func buildAndRun(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}

	dir, err := os.MkdirTemp("", "trvm")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	built = dir
	cmd := exec.Command(
		"go",
		"build",
		"-trimpath",
		"-buildvcs=false",
		"-ldflags",
		"-s -w",
		"-o",
		dir,
		"github.com/trivet-node/trivet/cri/cmd/trivet-monitor",
	)

	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build trivet-monitor: %v\n%s", err, out)
		return 1
	}

	return m.Run()
}

// Env is a directory with a monitor's socket and state, and a root filesystem.
type Env struct {
	Dir    string
	Config monitor.Config
	rootfs string
}

// New prepares an Env. At the end of the test its monitor, if any, is killed, and every process that was left
// in a container's cgroup is an error.
func New(tb testing.TB) *Env {
	tb.Helper()
	testenv.Root(tb)
	if built == "" {
		tb.Fatal("TestMain must call monitortest.Main")
	}

	dir := testenv.ShortDir(tb)
	e := &Env{Dir: dir, rootfs: filepath.Join(dir, "rootfs")}
	e.Config = monitor.Config{
		Socket:   filepath.Join(dir, "m.sock"),
		StateDir: filepath.Join(dir, "s"),
		Program:  e.Program(),
		LogFile:  filepath.Join(dir, "monitor.log"),
		Log:      slog.New(slog.NewTextHandler(tb.Output(), nil)),
	}

	testenv.BusyboxRoot(tb, e.rootfs)
	tb.Cleanup(func() {
		KillMonitor(tb, e.Config.Socket)
		removeCgroups(tb, "/trivet-monitor-test-"+filepath.Base(dir))
		if log, err := os.ReadFile(e.Config.LogFile); err == nil && tb.Failed() {
			tb.Logf("monitor's log:\n%s", log)
		}
	})

	return e
}

// removeCgroups removes the parents of the containers' cgroups; one that still holds a process is an error.
func removeCgroups(tb testing.TB, group string) {
	host, err := cgroup.Open()
	if err != nil {
		tb.Error(err)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := host.Remove(ctx, group); err != nil {
		tb.Errorf("processes are left: %v", err)
	}
}

// Program returns the path of the monitor's binary.
func (e *Env) Program() string { return filepath.Join(built, "trivet-monitor") }

// Runtime returns an installed OCI runtime with a state directory of its own.
func (e *Env) Runtime(tb testing.TB, name string) ociruntime.Runtime {
	tb.Helper()
	return ociruntime.Runtime{Program: testenv.Program(tb, name, name), Root: filepath.Join(e.Dir, name)}
}

// Container makes a bundle that runs args and returns what Create needs. change, if not nil, edits spec and
// container before they are written.
func (e *Env) Container(
	tb testing.TB,
	id string,
	rt ociruntime.Runtime,
	args []string,
	change func(*specs.Spec, *monitor.Container),
) monitor.Container {
	tb.Helper()
	c := monitor.Container{
		ID:          id,
		Bundle:      filepath.Join(e.Dir, "bundle-"+id),
		Runtime:     rt,
		LogPath:     filepath.Join(e.Dir, "logs", id+".log"),
		Cgroup:      "/trivet-monitor-test-" + filepath.Base(e.Dir) + "/" + id,
		OOMScoreAdj: 100,
	}
	spec := e.spec(c, args)
	if change != nil {
		change(spec, &c)
	}
	spec.Process.Terminal = c.TTY

	data, err := json.Marshal(spec)
	if err != nil {
		tb.Fatal(err)
	}
	if err := os.MkdirAll(c.Bundle, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(c.Bundle, "config.json"), data, 0o644); err != nil {
		tb.Fatal(err)
	}
	return c
}

// spec is an OCI runtime spec that runs args in the busybox root.
func (e *Env) spec(c monitor.Container, args []string) *specs.Spec {
	return &specs.Spec{
		Version: "1.0.2",
		Process: &specs.Process{
			Args:        args,
			Cwd:         "/",
			Env:         []string{"PATH=/bin", "TERM=xterm"},
			OOMScoreAdj: &c.OOMScoreAdj,
		},
		Root: &specs.Root{Path: e.rootfs},

		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc"},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
			{
				Destination: "/dev/pts",
				Type:        "devpts",
				Source:      "devpts",
				Options:     []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666"},
			},
		},
		Linux: &specs.Linux{
			CgroupsPath: c.Cgroup,
			Namespaces:  []specs.LinuxNamespace{{Type: "pid"}, {Type: "mount"}, {Type: "ipc"}, {Type: "uts"}},
		},
	}
}

// Pid returns the PID of the process that listens on a socket; 0 if none does.
func Pid(socket string) int {
	conn, err := net.Dial("unixpacket", socket)
	if err != nil {
		return 0
	}
	defer conn.Close()

	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}

	pid := 0
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = int(cred.Pid)
		}
	})

	return pid
}

// KillMonitor kills the monitor that listens on socket and waits until it has ended.
func KillMonitor(tb testing.TB, socket string) {
	tb.Helper()
	pid := Pid(socket)
	if pid == 0 {
		return
	}

	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fd)

	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		tb.Fatal(err)
	}

	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 {
			tb.Fatalf("monitor %d does not die: %v", pid, err)
		}

		return
	}
}

// KernelKeepsExits reports whether the exit status of a process can be found out after another process
// has reaped it (Linux 6.15).
func KernelKeepsExits(tb testing.TB) bool {
	tb.Helper()
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}

	// It has not been reaped yet, so it can be opened.
	fd, err := pidfd.Open(cmd.Process.Pid)
	if err := errors.Join(err, cmd.Wait()); err != nil {
		tb.Fatal(err)
	}
	defer unix.Close(fd)

	_, err = pidfd.Status(fd, cmd.Process.Pid)
	return err == nil
}

// Eventually calls f, with short pauses, until it returns nil. After 20 s its error fails the test.
func Eventually(tb testing.TB, f func() error) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	var err error
	for range retry.Every(ctx, 5*time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	tb.Fatal(err)
}

// LogText returns the output of a stream by its CRI log, as kubelet does: partial lines have no newline. A
// malformed line fails the test.
func LogText(tb testing.TB, path, stream string) string {
	tb.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		tb.Fatal(err)
	}

	var text strings.Builder
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(line, " ", 4)
		if len(parts) != 4 || !strings.HasSuffix(line, "\n") || (parts[2] != "P" && parts[2] != "F") ||
			(parts[1] != "stdout" && parts[1] != "stderr") {
			tb.Fatalf("malformed log line %q", line)
		}

		if _, err := time.Parse(time.RFC3339Nano, parts[0]); err != nil {
			tb.Fatalf("malformed time in log line %q", line)
		}
		if parts[1] != stream {
			continue
		}

		content := parts[3]
		if parts[2] == "P" {
			content = strings.TrimSuffix(content, "\n")
		}

		text.WriteString(content)
	}

	return text.String()
}
