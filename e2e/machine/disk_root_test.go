package machine

import (
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/e2e/loopdev"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMachineHasADiskOfItsOwnThatSurvivesAReboot(t *testing.T) {
	testenv.Root(t)
	testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	disk := Disk{
		Name:   "node",
		Size:   64 << 20,
		Inodes: 4096,
		Dirs:   []string{"/var/lib/kubelet", "/var/lib/kept/below", "/var/lib/other"},
	}

	m, c := bootWith(t, Config{Disks: []Disk{disk}})

	const devices = "stat -c %d /var/lib/kubelet /var/lib/kept/below /var/lib/other /var/lib/kept | uniq -c"
	if got := strings.Fields(inside(t, m, devices)); len(got) != 4 || got[0] != "3" {
		t.Errorf("counts and devices of the directories: %q, want three on the disk", got)
	}
	if got := inside(t, m, "stat -f -c %c /var/lib/kubelet"); got != "4096" {
		t.Errorf("the disk has %s inodes", got)
	}

	const fill = "dd if=/dev/zero of=/var/lib/kubelet/big bs=1M count=100 2>&1 || true"
	if got := inside(t, m, fill); !strings.Contains(got, "No space left on device") {
		t.Errorf("100 MB on a disk of 64 MiB: %s", got)
	}

	inside(t, m, "rm /var/lib/kubelet/big; echo kept >/var/lib/kept/below/file")
	if err := m.Halt(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := m.Boot(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if got := inside(t, m, "cat /var/lib/kept/below/file"); got != "kept" {
		t.Errorf("after the reboot the file has %q", got)
	}

	loops, err := loopdev.OnFilesBelow(m.Dir)
	if err != nil || len(loops) != 1 {
		t.Errorf("loop devices %v, %v; want one", loops, err)
	}
}

func TestMachineHasNoMoreMemoryThanItMayHave(t *testing.T) {
	testenv.Root(t)
	m, _ := bootWith(t, Config{Memory: 64 << 20})
	greedy := Daemon{
		Name: "greedy",
		Argv: []string{"/bin/sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"},
	}
	if err := m.Start(greedy); err != nil {
		t.Fatal(err)
	}

	for range retry.Every(t.Context(), 10*time.Millisecond) {
		states, err := m.List()
		if err != nil {
			t.Fatal(err)
		}

		if exit := states[0].Exit; exit == "signal killed" {
			return
		} else if exit != "" {
			t.Fatalf("a process that takes 200 MB ended with %s", exit)
		}
	}
}
