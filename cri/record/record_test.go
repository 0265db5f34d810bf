package record_test

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/cri/record"
)

type object struct {
	Name    string
	Size    int
	derived string
}

func open(t *testing.T, dir string, changed func(before, after *object)) *record.Index[object] {
	t.Helper()
	index, err := record.Open(record.Config[object]{
		Dir:  dir,
		Kind: "object",
		Decode: func(o *object) error {
			o.derived = "of " + o.Name
			return nil
		},
		Changed: changed,
		Log:     slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}

	return index
}

func put(t *testing.T, index *record.Index[object], names ...string) {
	t.Helper()
	for _, name := range names {
		if err := index.Put(name, object{Name: name}); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRecordIsFoundByAPrefixThatNoOtherHas(t *testing.T) {
	index := open(t, t.TempDir(), nil)
	put(t, index, "abc", "abd", "b", "bcd")
	for id, want := range map[string]string{
		"abc": "abc",
		"b":   "b",
		"bc":  "bcd",
		"ab":  "",
		"x":   "",
		"":    "",
	} {
		got, err := index.Get(id)
		if got.Name != want || errors.Is(err, record.ErrNotFound) != (want == "") {
			t.Errorf("%q is %q, %v; want %q", id, got.Name, err, want)
		}
	}
}

func TestRecordsAreThereAfterARestart(t *testing.T) {
	dir := t.TempDir()
	index := open(t, dir, nil)
	put(t, index, "kept", "gone")
	_, err := index.Change("kept", func(o *object) bool {
		o.Size = 7
		return true
	})
	if err := errors.Join(err, index.Delete("gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "torn.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}

	all := open(t, dir, nil).List()
	if want := (object{Name: "kept", Size: 7, derived: "of kept"}); len(all) != 1 || all[0] != want {
		t.Errorf("records %+v, want %+v", all, want)
	}
}

func TestObserverSeesEveryChangeInOrder(t *testing.T) {
	var seen []string
	index := open(t, t.TempDir(), func(before, after *object) {
		switch {
		case before == nil:
			seen = append(seen, "new "+after.Name)
		case after == nil:
			seen = append(seen, "gone "+before.Name)
		default:
			seen = append(seen, "changed "+after.Name)
		}
	})

	put(t, index, "a")
	for _, changes := range []bool{true, false} {
		if _, err := index.Change("a", func(*object) bool { return changes }); err != nil {
			t.Fatal(err)
		}
	}

	// Deleting what is not there is success, and not a change.
	for range 2 {
		if err := index.Delete("a"); err != nil {
			t.Fatal(err)
		}
	}

	if want := []string{"new a", "changed a", "gone a"}; !slices.Equal(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
}

// What the kernel has done cannot be undone by a full disk.
func TestChangeIsInMemoryThoughItsFileCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	index := open(t, dir, nil)
	put(t, index, "a")
	block(t, filepath.Join(dir, "a.json"))
	block(t, filepath.Join(dir, "b.json"))

	_, err := index.Change("a", func(o *object) bool {
		o.Size = 1
		return true
	})
	if err == nil {
		t.Error("no error though the file cannot be written")
	}
	if got, err := index.Get("a"); err != nil || got.Size != 1 {
		t.Errorf("in memory %+v, %v", got, err)
	}

	if err := index.Put("b", object{Name: "b"}); err == nil {
		t.Error("no error though the new file cannot be written")
	}
	if got, err := index.Get("b"); err == nil {
		t.Errorf("%+v is there though it was not written", got)
	}
}

// block makes a directory that is not empty of a file, so that no rename can replace it.
func block(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Join(path, "x"), 0o700)); err != nil {
		t.Fatal(err)
	}
}

func TestChangesOfOneRecordDoNotOverwriteEachOther(t *testing.T) {
	dir := t.TempDir()
	index := open(t, dir, nil)
	put(t, index, "a")
	var group sync.WaitGroup
	for range 20 {
		group.Go(func() {
			_, err := index.Change("a", func(o *object) bool {
				o.Size++
				return true
			})
			if err != nil {
				t.Error(err)
			}
		})
	}

	group.Wait()
	if got, err := open(t, dir, nil).Get("a"); err != nil || got.Size != 20 {
		t.Errorf("after 20 changes %+v, %v", got, err)
	}
}
