package inotify

import (
	"os"
	"os/exec"
	"syscall"
	"testing"

	"github.com/fsnotify/fsnotify"

	"github.com/trivet-node/trivet/internal/testenv"
)

// TestLimitOfTheKernelIsRecognized runs itself in a user namespace whose limit is none at all.
func TestLimitOfTheKernelIsRecognized(t *testing.T) {
	const inside = "TRIVET_TEST_WITHOUT_INOTIFY"
	if os.Getenv(inside) != "" {
		if err := os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0); err != nil {
			t.Fatal(err)
		}
		if _, err := fsnotify.NewWatcher(); !UsedUp(err) {
			t.Errorf("error %v, want that of a limit", err)
		}
		return
	}

	testenv.Root(t)
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run="+t.Name())
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
