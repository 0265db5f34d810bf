package removal_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/removal"
)

// descend makes depth nested directories below dir and returns a descriptor of the deepest.
func descend(t *testing.T, dir string, depth int, name string) int {
	t.Helper()
	at, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	for i := 0; err == nil && i < depth; i++ {
		if err = unix.Mkdirat(at, name, 0o700); err != nil {
			break
		}

		var next int
		next, err = unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
		unix.Close(at)
		at = next
	}

	if err != nil {
		t.Fatal(err)
	}

	return at
}

func gone(t *testing.T, path string) {
	t.Helper()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s is still there: %v", path, err)
	}
}

// limitDescriptors lets this process open a few more files than it has open now.
func limitDescriptors(t *testing.T, more int) {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}

	now := unix.Rlimit{Cur: uint64(len(open) + more), Max: old.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
}

func TestTreeRemovesDeepDirectoriesWithFewDescriptors(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	unix.Close(descend(t, tree, 3_000, "d"))
	limitDescriptors(t, 64)
	if err := removal.Tree(tree); err != nil {
		t.Fatal(err)
	}
	gone(t, tree)
}

// Deeper than the walk goes, with a name that it would give to what it moves up.
func TestTreeRemovesWhatIsDeeperThanItGoes(t *testing.T) {
	for name, remove := range map[string]func(string) error{
		"Tree":   removal.Tree,
		"Inside": func(path string) error { return removal.Inside(t.Context(), path) },
	} {
		t.Run(name, func(t *testing.T) {
			tree := filepath.Join(t.TempDir(), "tree")
			if err := os.MkdirAll(filepath.Join(tree, "moved-up-1"), 0o700); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"a", "b"} {
				at := descend(t, tree, 5_000, name)
				for i := range 200 {
					if err := unix.Mkdirat(at, fmt.Sprint(i), 0o700); err != nil {
						t.Fatal(err)
					}
				}
				unix.Close(at)
			}

			if err := remove(tree); err != nil {
				t.Fatal(err)
			}
			if entries, err := os.ReadDir(tree); err == nil && len(entries) > 0 {
				t.Errorf("left: %v", entries)
			}
		})
	}
}

// Every directory on the way has more names than one batch and further directories, so the walk comes back to
// each of them.
func TestTreeRemovesWideAndDeepDirectories(t *testing.T) {
	tree := filepath.Join(t.TempDir(), "tree")
	at := tree
	for depth := range 40 {
		if err := os.MkdirAll(filepath.Join(at, "side", "of", fmt.Sprint(depth)), 0o700); err != nil {
			t.Fatal(err)
		}

		for i := range 150 {
			if err := os.WriteFile(filepath.Join(at, fmt.Sprint("file", i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}

		at = filepath.Join(at, "d")
	}

	if err := removal.Tree(tree); err != nil {
		t.Fatal(err)
	}

	gone(t, tree)
}

func TestTreeDoesNotFollowLinks(t *testing.T) {
	dir := t.TempDir()
	outside, tree := filepath.Join(dir, "outside"), filepath.Join(dir, "tree")
	for _, d := range []string{outside, tree} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}

	if err := os.WriteFile(filepath.Join(outside, "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(tree, "link")); err != nil {
		t.Fatal(err)
	}
	if err := removal.Tree(tree); err != nil {
		t.Fatal(err)
	}

	gone(t, tree)
	if _, err := os.Lstat(filepath.Join(outside, "f")); err != nil {
		t.Errorf("a file behind a link: %v", err)
	}
}

func TestTreeTakesWhatIsNotThereForRemoved(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "none", "none")} {
		if err := removal.Tree(path); err != nil {
			t.Errorf("Tree(%s): %v", path, err)
		}
	}
}

func TestTreeRefusesTheRoot(t *testing.T) {
	if err := removal.Tree("/"); err == nil {
		t.Error("Tree of / succeeded")
	}
}

// count is the number of entries of a tree, its root included.
func count(t *testing.T, dir string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(string, fs.DirEntry, error) error { n++; return nil })
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestInsideKeepsTheDirectoryAndEndsWithItsContext(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"a/b/c", "d"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "a/b/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	ended, end := context.WithCancel(t.Context())
	end()
	if err := removal.Inside(ended, dir); !errors.Is(err, context.Canceled) {
		t.Errorf("a removal that must not begin: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "a/b/file")); err != nil {
		t.Error(err)
	}

	if err := removal.Inside(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if err := removal.Inside(t.Context(), filepath.Join(dir, "none")); err != nil {
		t.Errorf("what is not there: %v", err)
	}
}
