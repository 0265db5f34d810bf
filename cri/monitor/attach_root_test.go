package monitor_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// pipes counts the pipes that the monitor has open; an attached client's are two.
func pipes(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}

	for _, fd := range list {
		to, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err == nil && strings.HasPrefix(to, "pipe:") {
			n++
		}
	}

	return n
}

// attach attaches to a container's output until the test calls done. It returns when the monitor, which had
// so many pipes before, has the client's, or refused them.
func attach(
	t *testing.T, c *monitor.Client, pid int, id string, before int,
) (done context.CancelFunc, err error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- c.Attach(ctx, id, monitor.Streams{Stdout: io.Discard, Stderr: io.Discard}) }()
	limit := time.After(30 * time.Second)
	for {
		select {
		case err := <-ended:
			cancel()
			return nil, err
		case <-limit:
			cancel()
			t.Fatal("the monitor does not get the client's pipes")
		case <-time.After(time.Millisecond):
			if pipes(t, pid) == before+2 {
				return func() { cancel(); <-ended }, nil
			}
		}
	}
}

func TestDetachFromQuietContainerFreesDescriptorsOfMonitor(t *testing.T) {
	e, c := setup(t)
	run(t, c, e.Container(t, "q", e.Runtime(t, "crun"), []string{"/bin/sleep", "1000"}, nil))
	pid := monitortest.Pid(e.Config.Socket)
	before := pipes(t, pid)

	for range 45 {
		done, err := attach(t, c, pid, "q", before)
		if err != nil {
			t.Fatal(err)
		}

		done()
		monitortest.Eventually(t, func() error {
			if now := pipes(t, pid); now > before {
				return fmt.Errorf("the monitor has %d pipes open, %d before", now, before)
			}

			return nil
		})
	}
}

func TestMonitorRefusesAttachBeforeItLacksDescriptors(t *testing.T) {
	e, c := setup(t)
	rt := e.Runtime(t, "crun")
	run(t, c, e.Container(t, "q", rt, []string{"/bin/sleep", "1000"}, nil))
	pid := monitortest.Pid(e.Config.Socket)
	if err := unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: 100}, nil); err != nil {
		t.Fatal(err)
	}

	var refused error
	before := pipes(t, pid)
	for i := range 50 {
		done, err := attach(t, c, pid, "q", before+2*i)
		if refused = err; err != nil {
			break
		}

		t.Cleanup(done)
	}

	if refused == nil {
		t.Fatal("no attach was refused")
	}

	for _, want := range []string{"container q", "descriptors"} {
		if !strings.Contains(refused.Error(), want) {
			t.Errorf("refusal %q does not name %s", refused, want)
		}
	}

	// What the node lives by goes on.
	next := e.Container(t, "next", rt, sh("echo out; exit 7"), nil)
	run(t, c, next)
	if exit := wait(t, c, "next"); exit.Code != 7 {
		t.Errorf("exit %+v, want code 7", exit)
	}
	if got := monitortest.LogText(t, next.LogPath, "stdout"); got != "out\n" {
		t.Errorf("log %q", got)
	}
	if err := execTrue(t, c, "q"); err != nil {
		t.Errorf("exec: %v", err)
	}
}

func TestClientsOfOneContainerAreBounded(t *testing.T) {
	e, c := setup(t)
	rt := e.Runtime(t, "crun")
	run(t, c, e.Container(t, "q", rt, []string{"/bin/sleep", "1000"}, nil))
	run(t, c, e.Container(t, "other", rt, []string{"/bin/sleep", "1000"}, nil))
	pid := monitortest.Pid(e.Config.Socket)

	var refused error
	before := pipes(t, pid)
	for i := range 65 {
		done, err := attach(t, c, pid, "q", before+2*i)
		if refused = err; err != nil {
			break
		}

		t.Cleanup(done)
	}

	if refused == nil || !strings.Contains(refused.Error(), "64 clients") {
		t.Errorf("attach ended with %v, want a refusal that names the limit", refused)
	}

	done, err := attach(t, c, pid, "other", before+2*64)
	if err != nil {
		t.Fatalf("another container's client is refused: %v", err)
	}

	done()
}

func execTrue(t *testing.T, c *monitor.Client, id string) error {
	t.Helper()
	e, err := c.Exec(t.Context(), monitor.ExecConfig{
		ID:      id,
		Process: specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}},
	})
	if err != nil {
		return err
	}
	defer e.Close()

	exit, err := e.Wait(t.Context())
	if err == nil && exit.Code != 0 {
		err = fmt.Errorf("exit %+v", exit)
	}

	return err
}
