package removal_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestTreeKeepsMountsAndRemovesTheRest(t *testing.T) {
	testenv.Root(t)
	tree := filepath.Join(testenv.ShortDir(t), "tree")
	point := filepath.Join(tree, "a", "b", "point")
	for _, d := range []string{point, filepath.Join(tree, "a", "other"), filepath.Join(tree, "z", "deep")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}

	if err := mount.Tmpfs(point, "size=1m"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(point, "precious"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	err := removal.Tree(tree)
	if !errors.Is(err, removal.ErrMounted) || !strings.Contains(err.Error(), "tree/a/b/point") {
		t.Errorf("Tree with a mount: %v, want ErrMounted and its path", err)
	}
	if _, err := os.Lstat(filepath.Join(point, "precious")); err != nil {
		t.Errorf("a file behind the mount point: %v", err)
	}

	// tree, a, b, point, precious
	if n := count(t, tree); n != 5 {
		t.Errorf("%d entries are left, want 5", n)
	}

	if err := mount.Unmount(point); err != nil {
		t.Fatal(err)
	}
	if err := removal.Tree(tree); err != nil {
		t.Fatal(err)
	}

	gone(t, tree)
}

// The mount is at the bottom of 500 directories with names of 200 bytes: the error must name it without the
// whole path of 100 kB.
func TestErrorNamesTheLeafAndStaysShort(t *testing.T) {
	testenv.Root(t)
	tree := filepath.Join(testenv.ShortDir(t), "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}

	bottom := descend(t, tree, 500, strings.Repeat("n", 200))
	defer unix.Close(bottom)

	if err := unix.Mkdirat(bottom, "leaf", 0o700); err != nil {
		t.Fatal(err)
	}

	leaf, err := unix.Openat(bottom, "leaf", unix.O_PATH, 0)
	if err != nil {
		t.Fatal(err)
	}

	fs, err := unix.OpenTree(leaf, "", unix.AT_EMPTY_PATH|unix.OPEN_TREE_CLONE)
	if err != nil {
		t.Fatal(err)
	}

	const byDescriptor = unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH
	if err := unix.MoveMount(fs, "", leaf, "", byDescriptor); err != nil {
		t.Fatal(err)
	}

	unix.Close(fs)

	err = removal.Tree(tree)
	if !errors.Is(err, removal.ErrMounted) {
		t.Fatalf("Tree: %v, want ErrMounted", err)
	}
	if text := err.Error(); !strings.Contains(text, "/leaf: ") || len(text) > 2<<10 {
		t.Errorf("error of %d bytes: %.300s, want a short one with the leaf's name", len(text), text)
	}

	// Where the test runs now is restored when it ends.
	t.Chdir("/")
	if err := unix.Fchdir(bottom); err != nil {
		t.Fatal(err)
	}

	if err := unix.Unmount("leaf", unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}

	unix.Close(leaf)
	if err := removal.Tree(tree); err != nil {
		t.Fatal(err)
	}

	gone(t, tree)
}
