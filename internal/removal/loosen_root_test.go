package removal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/internal/testenv"
)

// ext4 mounts a file system that knows immutable files.
func ext4(t *testing.T) string {
	t.Helper()
	testenv.Root(t)
	mkfs := testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	image, dir := filepath.Join(t.TempDir(), "image"), testenv.ShortDir(t)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64<<20); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{mkfs, "-q", "-N", "8192", image}, {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.CommandContext(t.Context(), args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// bind sets flags as chattr(1) does.
func bind(t *testing.T, path string, flags int) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags); err != nil {
		t.Fatal(err)
	}
}

const (
	immutable  = 0x10
	appendOnly = 0x20
)

// More of them than the failures that end a walk.
func TestImmutableAndAppendOnlyFilesAreDeleted(t *testing.T) {
	dir := ext4(t)
	tree := filepath.Join(dir, "tree")
	sub, grown := filepath.Join(tree, "a", "sub"), filepath.Join(tree, "b")
	for _, d := range []string{sub, grown} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		path := filepath.Join(sub, strconv.Itoa(i))
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		bind(t, path, []int{immutable, appendOnly}[i%2])
	}
	if err := os.WriteFile(filepath.Join(grown, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	bind(t, sub, immutable)
	bind(t, grown, appendOnly)
	bind(t, tree, immutable)

	if err := removal.Inside(t.Context(), tree); err != nil {
		t.Error(err)
	}
	if n := count(t, tree); n != 1 {
		t.Errorf("%d entries are left, want the directory", n)
	}
	bind(t, tree, immutable)
	if err := removal.Tree(tree); err != nil {
		t.Error(err)
	}
	gone(t, tree)
}

// The parent of a tree is not the tree's.
func TestParentOfATreeStaysImmutable(t *testing.T) {
	dir := ext4(t)
	tree := filepath.Join(dir, "parent", "tree")
	if err := os.MkdirAll(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	bind(t, filepath.Dir(tree), immutable)
	if err := removal.Tree(tree); err == nil {
		t.Error("it was deleted")
	}
	bind(t, filepath.Dir(tree), 0)
}

// What is deeper than the walk goes is moved up, also past a flag that forbids it.
func TestImmutableDirectoriesFarDownAreDeleted(t *testing.T) {
	dir := ext4(t)
	tree := filepath.Join(dir, "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	at := descend(t, tree, 5000, "d")
	for range 1000 {
		if err := unix.IoctlSetPointerInt(at, unix.FS_IOC_SETFLAGS, immutable); err != nil {
			t.Fatal(err)
		}
		up, err := unix.Openat(at, "..", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(at)
		if err != nil {
			t.Fatal(err)
		}
		at = up
	}
	unix.Close(at)
	bind(t, tree, appendOnly)

	if err := removal.Inside(t.Context(), tree); err != nil {
		t.Error(err)
	}
	if n := count(t, tree); n != 1 {
		t.Errorf("%d entries are left, want the directory", n)
	}
}
