package fsgroup_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/fsgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

const gid = 4321

// check looks at every entry of a tree whose paths are short.
func check(t *testing.T, root string) (entries int) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		info, err := d.Info()
		if err != nil {
			return err
		}

		entries++
		if got := info.Sys().(*syscall.Stat_t).Gid; got != gid {
			t.Errorf("%s has group %d", path, got)
		}
		if info.Mode()&fs.ModeSymlink == 0 && info.Mode().Perm()&0o060 != 0o060 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return entries
}

// Each directory on the way has more entries than one batch, and further directories beside the one that
// leads down.
func TestEveryEntryOfAWideAndDeepTreeGetsTheGroup(t *testing.T) {
	testenv.Root(t)
	root := testenv.ShortDir(t)
	want, at := 1, root
	for depth := range 80 {
		for i := range 20 {
			if err := os.WriteFile(filepath.Join(at, fmt.Sprintf("file-%030d", i)), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}

		err := errors.Join(os.Mkdir(filepath.Join(at, "a"), 0o700), os.Mkdir(filepath.Join(at, "z"), 0o700),
			os.Symlink("/etc/passwd", filepath.Join(at, "link")), os.Mkdir(filepath.Join(at, "d"), 0o700))
		if err != nil {
			t.Fatalf("level %d: %v", depth, err)
		}

		want += 24
		at = filepath.Join(at, "d")
	}

	if err := fsgroup.Apply(t.Context(), root, gid, false, false); err != nil {
		t.Fatal(err)
	}
	if got := check(t, root); got != want {
		t.Errorf("%d entries, want %d", got, want)
	}
	if info, err := os.Stat("/etc/passwd"); err != nil || info.Sys().(*syscall.Stat_t).Gid == gid {
		t.Errorf("a file behind a link was changed, or %v", err)
	}
}

func TestDeepTreeTakesFewDescriptors(t *testing.T) {
	testenv.Root(t)
	root := t.TempDir()
	at, err := unix.Open(root, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}

	for range 2_000 {
		if err := unix.Mkdirat(at, "d", 0o700); err != nil {
			t.Fatal(err)
		}

		next, err := unix.Openat(at, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}

		unix.Close(at)
		at = next
	}

	defer unix.Close(at)

	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 128, Max: old.Max}); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &old)

	if err := fsgroup.Apply(t.Context(), root, gid, false, false); err != nil {
		t.Fatal(err)
	}

	var st unix.Stat_t
	if err := unix.Fstat(at, &st); err != nil || st.Gid != gid {
		t.Errorf("the deepest directory has group %d, %v", st.Gid, err)
	}
}

// The root comes last, so that OnRootMismatch repeats what was interrupted.
func TestInterruptedRunLeavesTheRoot(t *testing.T) {
	testenv.Root(t)
	root := testenv.ShortDir(t)
	if err := os.Mkdir(filepath.Join(root, "d"), 0o700); err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := fsgroup.Apply(ctx, root, gid, false, true); !errors.Is(err, context.Canceled) {
		t.Fatalf("%v", err)
	}
	if info, err := os.Stat(root); err != nil || info.Sys().(*syscall.Stat_t).Gid == gid {
		t.Errorf("the root was changed, or %v", err)
	}
	if err := fsgroup.Apply(t.Context(), root, gid, false, true); err != nil {
		t.Fatal(err)
	}

	check(t, root)
}
