package atomicdir_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/trivet-node/trivet/node/atomicdir"
)

func file(text string) atomicdir.File {
	return atomicdir.File{Data: []byte(text), Mode: 0o640, UID: os.Getuid()}
}

func write(t *testing.T, dir string, files map[string]atomicdir.File) bool {
	t.Helper()
	changed, err := atomicdir.Write(dir, files, atomicdir.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	return changed
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestFilesAreReplacedTogether(t *testing.T) {
	dir := t.TempDir()
	if !write(t, dir, map[string]atomicdir.File{"a": file("1"), "sub/dir/b": file("1")}) {
		t.Error("the first write changed nothing")
	}
	if os.Getuid() == 0 && write(t, dir, map[string]atomicdir.File{"a": file("1"), "sub/dir/b": file("1")}) {
		t.Error("writing the same again changed something")
	}
	if !write(t, dir, map[string]atomicdir.File{"a": file("2"), "c": file("2")}) {
		t.Error("a new content changed nothing")
	}
	if got := read(t, filepath.Join(dir, "a")); got != "2" {
		t.Errorf("a = %q", got)
	}
	if _, err := os.Lstat(filepath.Join(dir, "sub")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("sub is still there: %v", err)
	}
	if target, _ := os.Readlink(filepath.Join(dir, "c")); target != "..data/c" {
		t.Errorf("c leads to %q", target)
	}

	entries, err := os.ReadDir(dir)

	// ..DATE ..data a c
	if err != nil || len(entries) != 4 {
		t.Errorf("%d entries (%v), want 4: earlier sets must be removed", len(entries), err)
	}

	info, err := os.Stat(filepath.Join(dir, "a"))
	if err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("mode of a: %v %v", info.Mode(), err)
	}
}

func TestAKilledWriterLeavesTheOldSetInForce(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]atomicdir.File{"a": file("1")})
	for _, left := range []string{"..2026_01_01_00_00_00.1", "..data_tmp"} {
		if err := os.Mkdir(filepath.Join(dir, left), 0o700); err != nil {
			t.Fatal(err)
		}
	}

	if got := read(t, filepath.Join(dir, "a")); got != "1" {
		t.Errorf("a = %q", got)
	}

	write(t, dir, map[string]atomicdir.File{"a": file("2")})
	if entries, _ := os.ReadDir(dir); len(entries) != 3 {
		t.Errorf("leftovers stay: %v", entries)
	}
}

func TestNamesCannotLeaveTheVolume(t *testing.T) {
	for _, name := range []string{"", "/etc/passwd", "../x", "a/../../x", "..data", "..x", "a//b", "."} {
		if _, err := atomicdir.Write(t.TempDir(), map[string]atomicdir.File{
			name: file("x"),
		}, atomicdir.Owner{}); err == nil {
			t.Errorf("%q is accepted", name)
		}
	}
}

func TestReadersNeverSeeAMixture(t *testing.T) {
	dir := t.TempDir()
	sets := []string{"1", "2"}
	set := func(s string) map[string]atomicdir.File {
		return map[string]atomicdir.File{"a": file(s), "b": file(s)}
	}
	write(t, dir, set("1"))
	var stop atomic.Bool
	done := make(chan string, 1)
	go func() {
		defer close(done)

		for !stop.Load() {
			at, err := os.Readlink(filepath.Join(dir, "..data"))
			if err != nil {
				done <- err.Error()
				return
			}

			a, err1 := os.ReadFile(filepath.Join(dir, at, "a"))
			b, err2 := os.ReadFile(filepath.Join(dir, at, "b"))
			if err1 == nil && err2 == nil && string(a) != string(b) {
				done <- "mixture"
				return
			}
		}
	}()

	for i := range 200 {
		write(t, dir, set(sets[i%2]))
	}

	stop.Store(true)
	if problem := <-done; problem != "" {
		t.Error(problem)
	}
}
