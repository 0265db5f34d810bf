package loopdev_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/e2e/loopdev"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestDevicesAreFoundByTheirFilesAndDetached(t *testing.T) {
	testenv.Root(t)
	losetup := testenv.Program(t, "losetup", "mount")
	dir := t.TempDir()
	t.Cleanup(func() {
		left, err := loopdev.OnFilesBelow(dir)
		if err != nil {
			t.Error(err)
		}
		for device, file := range left {
			if err := loopdev.Detach(device, file); err != nil {
				t.Error(err)
			}
		}
	})

	attach := func(name string) string {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, make([]byte, 1<<20), 0o600); err != nil {
			t.Fatal(err)
		}

		out, err := exec.Command(losetup, "--find", "--show", file).CombinedOutput()
		if err != nil {
			testenv.Skip(t, "needs a loop device: %v: %s", err, out)
		}

		return strings.TrimSpace(string(out))
	}

	kept, skipped := attach("a/kept.img"), attach("cri/image")
	if err := os.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "moved")); err != nil {
		t.Fatal(err)
	}

	found, err := loopdev.OnFilesBelow(dir, filepath.Join(dir, "cri"))
	if err != nil || len(found) != 1 || found[kept] != filepath.Join(dir, "moved/kept.img") {
		t.Errorf("devices %v, %v; want %s on the file that was moved, not %s", found, err, kept, skipped)
	}

	// Of a device on another file nothing changes, which the device is by then perhaps.
	other := filepath.Join(dir, "cri/image")
	for _, file := range []string{other, found[kept], found[kept]} {
		if err := loopdev.Detach(kept, file); err != nil {
			t.Error(err)
		}

		again, err := loopdev.OnFilesBelow(filepath.Join(dir, "moved"))
		if want := file == other; err != nil || (len(again) > 0) != want {
			t.Errorf("after the detach from %s: %v, %v", file, again, err)
		}
	}

	if found, err := loopdev.OnFilesBelow(filepath.Join(dir, "gone")); err != nil || len(found) > 0 {
		t.Errorf("a directory that is not there: %v, %v", found, err)
	}
}
