package tally

import (
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// create makes the file in a directory of the test.
func create(t testing.TB) (*File, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "calls")
	f, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, path
}

func TestCallsAreCountedByVerbAndCode(t *testing.T) {
	f, path := create(t)
	for _, call := range []struct {
		verb string
		code uint
	}{
		{"ADD", 0}, {"ADD", 0}, {"ADD", 11}, {"ADD", 110}, {"ADD", 4711}, {"ADD", 42}, {"DEL", 0},
	} {
		if !Add(path, call.verb, call.code, time.Millisecond) {
			t.Errorf("%v is not counted", call)
		}
	}

	want := []Count{
		{Verb: "ADD", Code: "0", Calls: 2, Took: 2 * time.Millisecond},
		{Verb: "ADD", Code: "11", Calls: 1, Took: time.Millisecond},
		{Verb: "ADD", Code: "plugin", Calls: 2, Took: 2 * time.Millisecond},
		{Verb: "ADD", Code: "other", Calls: 1, Took: time.Millisecond},
		{Verb: "DEL", Code: "0", Calls: 1, Took: time.Millisecond},
	}
	if diff := cmp.Diff(want, f.Counts()); diff != "" {
		t.Error(diff)
	}
}

func TestCallsAtTheSameTimeAreAllCounted(t *testing.T) {
	f, path := create(t)
	var calls sync.WaitGroup
	for range 8 {
		calls.Go(func() {
			for range 100 {
				Add(path, "DEL", 0, time.Nanosecond)
			}
		})
	}
	calls.Wait()

	want := []Count{{Verb: "DEL", Code: "0", Calls: 800, Took: 800}}
	if diff := cmp.Diff(want, f.Counts()); diff != "" {
		t.Error(diff)
	}
}

func TestWhatWasCountedOutlivesTheReader(t *testing.T) {
	_, path := create(t)
	Add(path, "ADD", 0, time.Second)
	again, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if got := again.Counts(); len(got) != 1 || got[0].Calls != 1 {
		t.Errorf("%v", got)
	}
}

func TestNothingIsCountedWhereThereIsNoFileOrAnotherOne(t *testing.T) {
	dir := t.TempDir()
	if Add(filepath.Join(dir, "none"), "ADD", 0, 0) {
		t.Error("counted without a file")
	}

	for name, content := range map[string]string{
		"short":   "x",
		"foreign": string(make([]byte, fileSize-1)) + "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if Add(path, "ADD", 0, 0) {
			t.Errorf("counted in a file that is %s", name)
		}
	}

	_, path := create(t)
	if Add(path, "VERSION", 0, 0) {
		t.Error("VERSION is counted")
	}
}

func TestAFileOfSomethingElseIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "foreign")
	content := []byte("something else, longer than a mark")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Create(path); err == nil {
		t.Error("no error")
	}
}

func BenchmarkAdd(b *testing.B) {
	_, path := create(b)
	for b.Loop() {
		Add(path, "ADD", 0, time.Millisecond)
	}
}
