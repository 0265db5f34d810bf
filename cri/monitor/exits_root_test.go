package monitor_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/monitor"
	"github.com/trivet-node/trivet/cri/monitor/monitortest"
)

// startTrapped starts a container that says "up" and, when it gets SIGTERM, says "bye" and exits with code.
// It returns when the container is up.
func startTrapped(t *testing.T, e *monitortest.Env, c *monitor.Client, id string, code int) {
	t.Helper()
	script := fmt.Sprintf("trap 'echo bye; exit %d' TERM; echo up; while :; do sleep 0.02; done", code)
	want := e.Container(t, id, e.Runtime(t, "crun"), sh(script), nil)
	start(t, c, want)
	monitortest.Eventually(t, func() error {
		if data, err := os.ReadFile(want.LogPath); err != nil || len(data) == 0 {
			return errors.Join(errors.New("no output yet"), err)
		}
		return nil
	})
}

// pidsOf returns the PIDs of all containers.
func pidsOf(c *monitor.Client) map[string]int {
	pids := map[string]int{}
	for _, s := range c.List() {
		pids[s.ID] = s.Pid
	}
	return pids
}

func TestExitsWhileOneOfTheTwoIsDead(t *testing.T) {
	e, c := setup(t)
	for i, id := range []string{"monitor-dead", "server-dead", "both-dead", "lives"} {
		startTrapped(t, e, c, id, 20+i)
	}

	pids := pidsOf(c)

	monitorDead(t, e, func() {
		if err := c.Kill("monitor-dead", unix.SIGTERM); err != nil {
			t.Error(err)
		}

		waitGone(t, pids["monitor-dead"])
	})

	checkCode(t, wait(t, c, "monitor-dead"), 20)

	c.Close()
	unix.Kill(pids["server-dead"], unix.SIGTERM)
	waitGone(t, pids["server-dead"])
	c = connect(t, e)
	if exit := wait(t, c, "server-dead"); exit.Code != 21 || exit.Unknown {
		t.Errorf("exit while the server was dead: %+v, want 21", exit)
	}

	c.Close()
	monitortest.KillMonitor(t, e.Config.Socket)
	unix.Kill(pids["both-dead"], unix.SIGTERM)
	waitGone(t, pids["both-dead"], "Z")
	c = connect(t, e)
	if exit := wait(t, c, "both-dead"); !exit.Unknown || exit.Code != monitor.UnknownCode {
		t.Errorf("exit while both were dead: %+v, want unknown", exit)
	}

	if err := c.Kill("lives", unix.SIGTERM); err != nil {
		t.Error(err)
	}

	checkCode(t, wait(t, c, "lives"), 23)
	for _, id := range []string{"monitor-dead", "server-dead", "lives"} {
		log := filepath.Join(e.Dir, "logs", id+".log")
		if got := monitortest.LogText(t, log, "stdout"); got != "up\nbye\n" {
			t.Errorf("%s: log %q", id, got)
		}
	}

	deleteAll(t, c)
}

// deleteAll deletes the containers of a client that was closed: its cleanups find nothing.
func deleteAll(t *testing.T, c *monitor.Client) {
	t.Helper()
	for id := range pidsOf(c) {
		if err := c.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// monitorDead kills the monitor and keeps it from being started again until f has returned.
func monitorDead(t *testing.T, e *monitortest.Env, f func()) {
	t.Helper()
	fd, err := unix.Open(e.Config.Socket+".lock", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	done := make(chan error)

	// It gets the lock at the moment at which the monitor dies, if it is waiting for it by then.
	go func() { done <- unix.Flock(fd, unix.LOCK_EX) }()
	awaitWaiting(t, fd)
	monitortest.KillMonitor(t, e.Config.Socket)
	if err := <-done; err != nil {
		t.Fatal(err)
	}

	f()
}

// awaitWaiting waits until somebody waits for the lock of a file that another process holds.
func awaitWaiting(t *testing.T, fd int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}

	inode := fmt.Sprintf(":%d ", st.Ino)
	monitortest.Eventually(t, func() error {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(locks)) {
			// "1: -> FLOCK  ADVISORY  WRITE 1234 08:01:5678 0 EOF": who waits has an arrow, 5678 is the
			// inode.
			if strings.Contains(line, " -> FLOCK ") && strings.Contains(line, inode) {
				return nil
			}
		}
		return errors.New("nobody waits for the lock")
	})
}

// waitGone waits until a process that is not our child has ended; it may be a zombie unless that counts as
// alive.
func waitGone(t *testing.T, pid int, alive ...string) {
	t.Helper()
	monitortest.Eventually(t, func() error {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || strings.Contains(string(data), ") Z ") && len(alive) == 0 {
			return nil
		}
		return fmt.Errorf("process %d is still there", pid)
	})
}
