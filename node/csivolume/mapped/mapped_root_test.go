package mapped

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// setLoop sets a free loop device on a file, and returns its directory in sysfs.
func setLoop(t *testing.T, file string) string {
	t.Helper()
	control, err := os.Open("/dev/loop-control")
	must(t, err)
	defer control.Close()
	backing, err := os.Open(file)
	must(t, err)
	defer backing.Close()

	// Another process may take the free one first.
	for range 20 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		must(t, err)
		loop, err := os.Open(fmt.Sprintf("/dev/loop%d", n))
		must(t, err)
		err = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_SET_FD, int(backing.Fd()))
		loop.Close()
		if err == nil {
			return fmt.Sprintf("/sys/block/loop%d", n)
		}
	}
	t.Fatal("no loop device is free")
	return ""
}

func TestWhatKubeletMakesForABlockVolumeIsRemoved(t *testing.T) {
	testenv.Root(t)
	root := t.TempDir()
	device, other := filepath.Join(root, "device"), filepath.Join(root, "other")
	path := filepath.Join(root, "dev", "uid")
	must(t, os.Mkdir(filepath.Dir(path), 0o750))
	for _, file := range []string{device, other, path} {
		must(t, os.WriteFile(file, make([]byte, 4096), 0o600))
	}
	must(t, mount.Bind(device, path, mount.BindOptions{}))
	ours, theirs := setLoop(t, path), setLoop(t, other)
	t.Cleanup(func() { must(t, detach(other)) })
	if !isOn(ours, path) || !isOn(theirs, other) {
		t.Fatal("the loop devices are not on their files")
	}

	// kubelet may have been given its directory by another name.
	must(t, os.Symlink(root, filepath.Join(root, "link")))
	for range 2 {
		must(t, Remove(filepath.Join(root, "link", "dev", "uid")))
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the path: %v", err)
	}
	if isOn(ours, path) || !isOn(theirs, other) {
		t.Error("want the loop device on the path free, and no other")
	}
}
