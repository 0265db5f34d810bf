package loop_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/testenv"
)

func image(t *testing.T, size int64) string {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "x.img")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestDeviceIsFoundByTagGrownAndDetached(t *testing.T) {
	testenv.Root(t)
	path, tag := image(t, 1<<20), fmt.Sprintf("trivet-test/%d", os.Getpid())
	dev, err := loop.Attach(path, loop.Options{Tag: tag})
	if err != nil {
		t.Fatal(err)
	}

	// Without AutoClear it stays.
	dev.Close()
	found, err := loop.Find(tag)
	if err != nil || len(found) != 1 || found[tag] == nil {
		t.Fatalf("Find = %v, %v", found, err)
	}

	dev = found[tag]
	defer dev.Close()

	if flags, err := unix.FcntlInt(dev.Fd(), unix.F_GETFL, 0); err != nil ||
		flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("found devices are open for writing: their contents are probed again when they are "+
			"closed; %#x, %v", flags, err)
	}

	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := loop.Resize(dev); err != nil {
		t.Fatal(err)
	}
	if size, err := loop.Size(dev); err != nil || size != 2<<20 {
		t.Errorf("size %d, %v", size, err)
	}
	if err := loop.Detach(dev, "another"); err != nil {
		t.Error(err)
	}
	if _, err := loop.Tag(dev); err != nil {
		t.Errorf("a device with a foreign tag was detached: %v", err)
	}

	for range 2 {
		if err := loop.Detach(dev, tag); err != nil {
			t.Error(err)
		}
	}
}

func TestAutoClearLeavesNothing(t *testing.T) {
	testenv.Root(t)
	path, tag := image(t, 1<<20), fmt.Sprintf("trivet-auto/%d", os.Getpid())
	dev, err := loop.Attach(path, loop.Options{Tag: tag, AutoClear: true})
	if err != nil {
		t.Fatal(err)
	}
	dev.Close()
	found, err := loop.Find(tag)
	if err != nil || len(found) != 0 {
		t.Errorf("Find = %v, %v", found, err)
	}
}
