package memoryalarm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// unified makes a group of cgroup v2, which a machine with v1 has beside it, without controllers.
func unified(t *testing.T) (dir string) {
	t.Helper()
	testenv.Root(t)
	for _, root := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		var st unix.Statfs_t
		if unix.Statfs(root, &st) != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
			continue
		}

		dir := filepath.Join(root, fmt.Sprintf("trivet-memoryalarm-%d", os.Getpid()))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}

		// The last process leaves it a moment after its exit.
		t.Cleanup(func() {
			for range retry.Every(context.Background(), time.Millisecond) {
				if err := os.Remove(dir); err == nil {
					return
				}
			}
		})

		return dir
	}

	t.Skip("cgroup v2 is not mounted")
	return ""
}

// silent is an alarm that has no source yet.
func silent(t *testing.T) *Alarm {
	t.Helper()
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	a, err := open(host, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(a.close)
	return a
}

// What memory.events of a group with controllers does is what cgroup.events of any group does.
func TestAChangeOfAFileOfCgroupV2IsReported(t *testing.T) {
	dir, a := unified(t), silent(t)
	if err := a.openChanges(filepath.Join(dir, "cgroup.events")); err != nil {
		t.Fatal(err)
	}
	if a.reported() {
		t.Fatal("reported before it has changed")
	}

	sleep := exec.Command("sleep", "1000")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()

	procs := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(procs, []byte(strconv.Itoa(sleep.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}

	for range retry.Every(t.Context(), time.Millisecond) {
		if a.reported() {
			break
		}
	}
}

func TestStallsOfTheMachineAndOfAGroupCanBeWaitedFor(t *testing.T) {
	dir, a := unified(t), silent(t)
	for _, file := range []string{machineStalls, filepath.Join(dir, "memory.pressure")} {
		if _, err := os.Stat(file); err != nil {
			t.Skipf("the kernel does not count stalls: %v", err)
		}
		if err := a.openStalls(file); err != nil {
			t.Error(err)
		}
	}
}

// reported takes what was reported, and says whether anything was.
func (a *Alarm) reported() (any bool) {
	conn, err := a.events.SyscallConn()
	if err != nil {
		return false
	}
	_ = conn.Control(func(set uintptr) { any = a.take(int(set)) })
	return any
}
