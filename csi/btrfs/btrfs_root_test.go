package btrfs_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

// fresh mounts a new btrfs of 512 MiB.
func fresh(t *testing.T) *os.File {
	t.Helper()
	testenv.Root(t)
	mkfs := testenv.Program(t, "mkfs.btrfs", "btrfs-progs")
	dir := testenv.ShortDir(t)
	img, root := filepath.Join(dir, "img"), filepath.Join(dir, "root")
	err := errors.Join(os.WriteFile(img, nil, 0o600), os.Truncate(img, 512<<20), os.Mkdir(root, 0o700))
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), mkfs, "-q", img).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	dev, err := loop.Attach(img, loop.Options{Tag: "trivet-btrfs-test", AutoClear: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()

	if err := unix.Mount(dev.Name(), root, "btrfs", 0, ""); err != nil {
		t.Fatal(err)
	}

	f, err := os.Open(root)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		f.Close()
		if err := mount.Unmount(root); err != nil {
			t.Error(err)
		}
	})

	return f
}

// writeToTheEnd writes until the quota is exhausted, syncs, and returns how many bytes it wrote.
func writeToTheEnd(t *testing.T, file *os.File, most int) (written int) {
	t.Helper()
	var err error
	for err == nil && written < most {
		var n int
		n, err = file.Write(bytes.Repeat([]byte("x"), 1<<16))
		written += n
	}

	if !errors.Is(err, unix.EDQUOT) {
		t.Fatalf("after %d bytes: %v", written, err)
	}
	if err := file.Sync(); err != nil {
		t.Fatal(err)
	}

	return written
}

func TestLimitStopsWritersAndIsAccounted(t *testing.T) {
	root := fresh(t)
	for range 2 {
		if q, err := btrfs.EnableQuota(root); err != nil || q == "" {
			t.Fatal(q, err)
		}
	}

	if err := btrfs.Create(root, "v"); err != nil {
		t.Fatal(err)
	}

	v, err := btrfs.Open(root, "v")
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()

	sub, err := btrfs.Inspect(v)
	if err != nil {
		t.Fatal(err)
	}

	const limit = 16 << 20
	if err := btrfs.Limit(root, sub, limit); err != nil {
		t.Fatal(err)
	}

	file, err := os.Create(filepath.Join(v.Name(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()

	n := writeToTheEnd(t, file, 2*limit)
	if n < limit*9/10 || n > limit {
		t.Fatalf("wrote %d of %d bytes", n, limit)
	}

	info, err := btrfs.Stat(root)
	if err != nil {
		t.Fatal(err)
	}
	if used, err := btrfs.Usage(info, sub); err != nil || used < int64(n) || used > limit {
		t.Errorf("usage %d, %v; wrote %d", used, err, n)
	}
	if sub.Created == 0 || sub.Created > info.Generation {
		t.Errorf("created in transaction %d, the file system is at %d", sub.Created, info.Generation)
	}
	if err := btrfs.Limit(root, sub, 2*limit); err != nil {
		t.Fatal(err)
	}
	if _, err := file.Write(make([]byte, 1<<20)); err != nil {
		t.Errorf("after the limit was raised: %v", err)
	}
}

func TestDestroyTakesWhatIsThereAndNothingElse(t *testing.T) {
	root := fresh(t)
	if err := btrfs.Create(root, "v"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root.Name(), "v", "f"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := btrfs.Destroy(root, "v"); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.Mkdir(filepath.Join(root.Name(), "plain"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/", filepath.Join(root.Name(), "link")); err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"plain", "link", "..", "../x"} {
		if err := btrfs.Destroy(root, name); err == nil {
			t.Errorf("Destroy(%q) was accepted", name)
		}
	}

	if err := btrfs.Sync(root); err != nil {
		t.Error(err)
	}
}
