package memoryalarm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/node/memoryalarm"
)

// group makes a control group for the test.
func group(t *testing.T, host *cgroup.Host) string {
	t.Helper()
	name := fmt.Sprintf("/trivet-memoryalarm-%d", os.Getpid())
	if err := host.Create(name); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := host.Remove(context.Background(), name); err != nil {
			t.Error(err)
		}
	})

	return name
}

// start runs an alarm until the test ends.
func start(t *testing.T, host *cgroup.Host, pods string) *memoryalarm.Alarm {
	t.Helper()
	a, err := memoryalarm.Open(host, pods, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})

	return a
}

func open(t *testing.T) *cgroup.Host {
	t.Helper()
	testenv.Root(t)
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}
	return host
}

// fill has a process of a group write a file of so many bytes in memory.
func fill(t *testing.T, host *cgroup.Host, group string, bytes int) {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})

	// It is in the group before it writes.
	script := fmt.Sprintf("read go; head -c %d /dev/zero > %s/file", bytes, dir)
	sh := exec.Command("sh", "-c", script)
	in, err := sh.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := sh.Start(); err != nil {
		t.Fatal(err)
	}

	moved := host.Add(group, sh.Process.Pid)
	_, _ = io.WriteString(in, "go\n")
	if err := errors.Join(moved, in.Close(), sh.Wait()); err != nil {
		t.Fatal(err)
	}
}

func TestASignComesWhenAGroupUsesAsMuchAsWasAimedAt(t *testing.T) {
	host := open(t)
	if host.V2 {
		t.Skip("cgroup v2 has no thresholds of usage")
	}

	pods := group(t, host)
	a := start(t, host, pods)
	usage, err := host.Usage(pods)
	if err != nil {
		t.Fatal(err)
	}

	now := int64(usage.Memory)
	a.Aim([]memoryalarm.Aim{{Group: pods, Now: now, Limit: now + 32<<20}})
	fill(t, host, pods, 40<<20)
	select {
	case <-a.Signs():
	case <-time.After(time.Minute):
		t.Error("no sign")
	}
}

// descriptors counts those of this process.
func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAimsThatAreReplacedAndAlarmsThatEndLeaveNoDescriptors(t *testing.T) {
	host := open(t)
	pods := group(t, host)
	before := descriptors(t)

	a, err := memoryalarm.Open(host, pods, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { a.Run(ctx) })

	var most int
	for i := range int64(100) {
		// Each is far from the one before.
		a.Aim([]memoryalarm.Aim{
			{Group: pods, Limit: (i%2 + 1) << 30},
			{Group: "/no/such/group", Limit: 1 << 30},
		})
		most = max(most, descriptors(t))
	}

	// The epoll set, what it has, and what the poller of this process may have opened.
	if more := most - before; more > 10 {
		t.Errorf("%d descriptors more than before", more)
	}

	cancel()
	running.Wait()
	if left := descriptors(t) - before; left > 2 {
		t.Errorf("%d descriptors are left", left)
	}
}

func TestAnAlarmWithoutItsGroupsIsSilent(t *testing.T) {
	host := open(t)
	a := start(t, host, "/no/such/group")
	a.Aim([]memoryalarm.Aim{{Group: "/no/such/group", Limit: 1 << 30}})
}
