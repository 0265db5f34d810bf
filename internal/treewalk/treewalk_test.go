package treewalk_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// enter opens a directory, such as an entry of dir, and makes it the present one.
func enter(t *testing.T, w *treewalk.Walk, dir int, name string) {
	t.Helper()
	fd, err := beneath.Open(dir, name, unix.O_PATH|unix.O_DIRECTORY, beneath.OneFileSystem)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	if err := w.Enter(fd, name, &st); err != nil {
		t.Fatal(err)
	}
}

// chain makes nested directories, each with a file beside it, and walks to the innermost one.
func chain(t *testing.T, w *treewalk.Walk, depth int) (root string) {
	t.Helper()
	root = t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, strings.Repeat("d/", depth)), 0o700); err != nil {
		t.Fatal(err)
	}

	for i := range depth {
		file := filepath.Join(root, strings.Repeat("d/", i), "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	t.Cleanup(w.Close)
	enter(t, w, unix.AT_FDCWD, root)
	return root
}

// rest walks on, down into each directory, and returns how many files and directories there are.
func rest(t *testing.T, w *treewalk.Walk, paused bool) (files, dirs int) {
	t.Helper()
	for {
		dir, name, err := w.Next()
		switch {
		case err != nil:
			t.Fatal(err)
		case dir < 0:
			return files, dirs
		case name == "file":
			files++
		default:
			dirs++
			enter(t, w, dir, name)
		}

		if paused {
			w.Pause()
		}
	}
}

func TestEachNameIsSeenOnceHoweverOftenTheWalkPauses(t *testing.T) {
	for _, paused := range []bool{false, true} {
		var w treewalk.Walk
		chain(t, &w, 100)
		if files, dirs := rest(t, &w, paused); files != 100 || dirs != 100 || w.Depth() != -1 {
			t.Errorf("paused: %t: %d files and %d directories", paused, files, dirs)
		}
	}
}

func TestWalkGoesOnAtTheRootWhenTheWayBackIsLost(t *testing.T) {
	var w treewalk.Walk
	root := chain(t, &w, 100)
	for w.Depth() < 100 {
		dir, name, err := w.Next()
		if err != nil {
			t.Fatal(err)
		}
		if name == "d" {
			enter(t, &w, dir, name)
		}
	}

	middle := filepath.Join(root, strings.Repeat("d/", 50))
	if err := os.Rename(middle, filepath.Join(t.TempDir(), "d")); err != nil {
		t.Fatal(err)
	}

	var lost error
	for {
		dir, _, err := w.Next()
		if err != nil {
			lost = err
		}
		if dir < 0 && err == nil {
			break
		}
	}

	if !errors.Is(lost, treewalk.ErrMoved) {
		t.Errorf("error %v", lost)
	}
}

// Those who write to a tree decide how deep it is, and a walk keeps something of each directory on its way.
func TestAWalkGoesNoDeeperThanItMay(t *testing.T) {
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd := int(dir.Fd())
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}

	var w treewalk.Walk
	defer w.Close()
	for w.Depth() < 1<<12 {
		if err := w.Enter(fd, "d", &st); err != nil {
			t.Fatalf("%d directories down: %v", w.Depth(), err)
		}
	}
	if err := w.Enter(fd, "d", &st); !errors.Is(err, treewalk.ErrDeep) || w.Depth() != 1<<12 {
		t.Errorf("%d directories down: %v", w.Depth(), err)
	}
}
