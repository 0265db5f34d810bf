package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

type record struct{ Size int }

func TestStoreKeepsRecordsAcrossReopen(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("a", record{7}); err != nil {
		t.Fatal(err)
	}

	s, err = OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := s.Get("a"); err != nil || got.Size != 7 {
		t.Fatalf("got %+v, %v", got, err)
	}

	// deleting twice is success
	for range 2 {
		if err := s.Delete("a"); err != nil {
			t.Fatal(err)
		}
	}

	if _, err := s.Get("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("got %v, want fs.ErrNotExist", err)
	}
}

func TestListSetsTornRecordsAsideAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("good", record{1}); err != nil {
		t.Fatal(err)
	}

	for name, data := range map[string]string{
		"torn.json":        `{"Size":`,
		"empty.json":       "",
		"foreign":          "x",
		".tmp-good.json-1": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// the second pass finds them gone
	for range 2 {
		records, torn, err := s.List()
		if err != nil {
			t.Fatal(err)
		}
		if len(records) != 1 || records["good"].Size != 1 {
			t.Fatalf("records %v", records)
		}

		for _, x := range torn {
			if _, err := os.Stat(x.Moved); err != nil {
				t.Errorf("torn record %s was not kept: %v", x.Name, err)
			}
		}
	}

	if _, err := os.Stat(filepath.Join(dir, ".tmp-good.json-1")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the temporary file of a killed writer is still there: %v", err)
	}
}

// A process without a descriptor left says nothing about the records.
func TestRecordsAreSetAsideForLastingErrorsOnly(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("a", record{Size: 1}); err != nil {
		t.Fatal(err)
	}

	for _, passing := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM} {
		if err := (&fs.PathError{Op: "open", Path: "a.json", Err: passing}); !isPassing(err) {
			t.Errorf("%v sets a record aside", err)
		}
	}
	if lasting := (&fs.PathError{Op: "read", Path: "a.json", Err: unix.EIO}); isPassing(lasting) {
		t.Errorf("%v keeps all records from being read", lasting)
	}
	if records, torn, err := s.List(); len(records) != 1 || len(torn) != 0 || err != nil {
		t.Errorf("records %v, set aside %v: %v", records, torn, err)
	}
}

func TestNamesCannotLeaveTheDirectory(t *testing.T) {
	s, err := OpenStore[record](t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "../x", "a/b", ".hidden", "a\x00"} {
		if err := s.Put(name, record{}); err == nil {
			t.Errorf("Put(%q) was accepted", name)
		}
	}
}

func TestConcurrentChangesAreAllThere(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("blocked", record{}); err != nil {
		t.Fatal(err)
	}

	blocked := filepath.Join(dir, "blocked.json")
	if err := errors.Join(os.Remove(blocked), os.MkdirAll(filepath.Join(blocked, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}

	var group sync.WaitGroup
	for i := range 40 {
		group.Go(func() {
			name := fmt.Sprint("r", i)
			if err := errors.Join(s.Put(name, record{i}), s.Note(name, record{i + 100})); err != nil {
				t.Error(err)
			}

			if i%2 == 0 {
				if err := s.Delete(name); err != nil {
					t.Error(err)
				}
			}
		})

		group.Go(func() {
			// its failure is nobody else's
			if err := s.Put("blocked", record{i}); err == nil {
				t.Error("a directory was replaced by a record")
			}
		})
	}

	group.Wait()
	if err := os.RemoveAll(filepath.Join(dir, "blocked.json")); err != nil {
		t.Fatal(err)
	}

	records, torn, err := s.List()
	if err != nil || len(torn) > 0 || len(records) != 20 || records["r7"].Size != 107 {
		t.Errorf("records %v, torn %v, %v", records, torn, err)
	}

	left, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil || len(left) > 0 {
		t.Errorf("temporary files %v, %v", left, err)
	}
}

func TestSweepRemovesWhatAKilledWriterOfThisFileLeft(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"conf", ".tmp-conf-1", ".tmp-conf-22", ".tmp-other-1", ".tmp-conf"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}

	// sweeping twice is success
	for range 2 {
		if err := Sweep(filepath.Join(dir, "conf")); err != nil {
			t.Fatal(err)
		}
	}

	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("left: %v, %v", entries, err)
	}
	if err := Sweep(filepath.Join(dir, "absent", "conf")); err != nil {
		t.Errorf("a directory that is not there: %v", err)
	}
}

func TestSweepOfADirectoryLeavesWhatIsWhole(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".tmp-a-1", ".tmp-b-2", "a", ".hidden"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(SweepDir(dir), SweepDir(filepath.Join(dir, "none"))); err != nil {
		t.Fatal(err)
	}

	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if len(left) != 2 || err != nil {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestRecordIsWrittenOverWithinItsFile(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}

	// shorter and longer than before
	for _, size := range []int{123456, 7, 1234567890} {
		if err := s.Update("a", record{Size: 1}); err != nil {
			t.Fatal(err)
		}

		path, data, err := s.encode("a", record{size})
		if err != nil {
			t.Fatal(err)
		}
		if err := overwrite(path, data); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get("a"); err != nil || got.Size != size {
			t.Errorf("got %+v, %v; want %d", got, err, size)
		}
	}

	if err := overwrite(filepath.Join(dir, "none.json"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("writing over nothing: %v", err)
	}
}

func TestAnUnflushedFileReplacesAnother(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, data := range []string{"first", "second"} {
		if err := WriteUnflushed(path, []byte(data), 0o640); err != nil {
			t.Fatal(err)
		}

		got, err := os.ReadFile(path)
		if err != nil || string(got) != data {
			t.Errorf("%q, %v, want %q", got, err, data)
		}
	}

	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v: want only the file", entries, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestQuarantinedRecordIsFoundAndDiscarded(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{"a", "ab"} {
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	if _, torn, err := s.List(); err != nil || len(torn) != 2 {
		t.Fatal(torn, err)
	}
	if files, err := s.Quarantined("a"); err != nil || len(files) != 1 {
		t.Errorf("set aside: %v, %v", files, err)
	}

	for range 2 {
		if err := s.Discard("a"); err != nil {
			t.Error(err)
		}
	}

	gone, err1 := s.Quarantined("a")
	kept, err2 := s.Quarantined("ab")
	if len(gone) != 0 || len(kept) != 1 || err1 != nil || err2 != nil {
		t.Errorf("left %v and %v, %v, %v", gone, kept, err1, err2)
	}
}

func TestPeekChangesNothing(t *testing.T) {
	dir := t.TempDir()
	if records, _, err := Peek[record](filepath.Join(dir, "none")); err != nil || len(records) > 0 {
		t.Errorf("of a directory that is not there: %v, %v", records, err)
	}

	for name, data := range map[string]string{
		"good.json":        `{"Size":1}`,
		"torn.json":        `{"Size":`,
		".tmp-good.json-1": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for range 2 {
		records, unreadable, err := Peek[record](dir)
		if err != nil || len(records) != 1 || records["good"].Size != 1 {
			t.Errorf("records %v, %v", records, err)
		}
		if len(unreadable) != 1 || unreadable[0].Name != "torn" || unreadable[0].Moved != "" {
			t.Errorf("unreadable %v", unreadable)
		}
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 3 {
		t.Errorf("%v, %v", entries, err)
	}

	s, err := OpenStore[record](dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.List(); err != nil {
		t.Fatal(err)
	}
	_, unreadable, err := Peek[record](dir)
	if err != nil || len(unreadable) != 1 || unreadable[0].Name != "torn" || unreadable[0].Moved == "" {
		t.Errorf("set aside: %v, %v", unreadable, err)
	}
}

// TestReplaceKeepsWhatIsNotItsOwn has a file behind a link, with another mode.
func TestReplaceKeepsWhatIsNotItsOwn(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Chmod(file, 0o640), os.Symlink("file", link)); err != nil {
		t.Fatal(err)
	}

	if err := Replace(link, []byte("new")); err != nil {
		t.Fatal(err)
	}
	info, err := os.Lstat(file)
	if err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if target, err := os.Readlink(link); err != nil || target != "file" {
		t.Errorf("the link leads to %q, %v", target, err)
	}
	if data, err := os.ReadFile(file); err != nil || string(data) != "new" {
		t.Errorf("has %q, %v", data, err)
	}
	if err := Replace(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
}
