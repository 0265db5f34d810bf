package logfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/logfile"
)

func openLog(t *testing.T, path string) *logfile.File {
	t.Helper()
	log, err := logfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	return log
}

// appended writes lines to the log and returns their place.
func appended(t *testing.T, log *logfile.File, lines string) logfile.Place {
	t.Helper()
	var place logfile.Place
	if err := log.Append([]byte(lines), len(lines), func(p logfile.Place) { place = p }); err != nil {
		t.Fatal(err)
	}
	return place
}

func content(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestOpenMakesTheDirectoryAndAppendsToWhatIsThere(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pod", "container", "0.log")
	appended(t, openLog(t, path), "one\n")
	appended(t, openLog(t, path), "two\n")
	if got := content(t, path); got != "one\ntwo\n" {
		t.Errorf("the log holds %q", got)
	}
}

func TestReopenWritesToTheFileOfThatNameAfterARotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	log := openLog(t, path)
	appended(t, log, "one\n")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}

	appended(t, log, "two\n")

	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}

	appended(t, log, "three\n")
	if rotated, now := content(t, path+".1"), content(t, path); rotated != "one\ntwo\n" || now != "three\n" {
		t.Errorf("the rotated file holds %q, the log %q", rotated, now)
	}
}

func TestOutputIsDroppedAndCountedWhileTheLogCannotBeWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.Symlink("/dev/full", path); err != nil {
		t.Fatal(err)
	}

	log := openLog(t, path)

	for i, want := range []logfile.DropError{{Bytes: 3, First: true}, {Bytes: 6}} {
		err := log.Append([]byte("a line\n"), 3, func(logfile.Place) {})
		drop, ok := errors.AsType[*logfile.DropError](err)
		if !ok || drop.Bytes != want.Bytes || drop.First != want.First || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("loss %d: %v (%+v), want %+v", i, err, drop, want)
		}
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}

	appended(t, log, "kept\n")
	if got := content(t, path); got != "kept\n" {
		t.Errorf("the log holds %q", got)
	}
}

func TestALogThatCouldNotBeOpenedDropsUntilItCanBe(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}

	log, err := logfile.Open(filepath.Join(dir, "0.log"))
	if err == nil {
		t.Fatal("a log below a file was opened")
	}
	defer log.Close()

	if err := log.Append([]byte("lost\n"), 4, func(logfile.Place) {}); err == nil {
		t.Error("an append to no file succeeded")
	}

	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if err := log.Reopen(); err != nil {
		t.Fatal(err)
	}

	appended(t, log, "kept\n")
}

func TestCompleteFindsOutWhetherAnAppendWasCarriedOut(t *testing.T) {
	const lines = "one line\nanother\n"
	for _, test := range []struct {
		name string
		// change does to the log at path what a kill or a rotation may have done.
		change func(path string, place logfile.Place) error
		want   bool
		left   string
	}{
		{"whole", func(string, logfile.Place) error { return nil }, true, "before\n" + lines},
		{"nothing of it", func(path string, p logfile.Place) error {
			return os.Truncate(path, p.Start)
		}, false, "before\n"},
		{"torn, and cut off", func(path string, p logfile.Place) error {
			return os.Truncate(path, p.Start+3)
		}, false, "before\n"},
	} {
		for _, rotated := range []bool{false, true} {
			name := test.name
			if rotated {
				name += ", rotated"
			}

			t.Run(name, func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "0.log")
				log := openLog(t, path)
				appended(t, log, "before\n")
				place := appended(t, log, lines)
				if err := test.change(path, place); err != nil {
					t.Fatal(err)
				}

				now := path
				if rotated {
					now = path + ".20260102"
					if err := os.Rename(path, now); err != nil {
						t.Fatal(err)
					}

					appended(t, openLog(t, path), "a longer text in another file\n")
				}

				got, err := place.Complete(path, int64(len(lines)))
				if err != nil || got != test.want {
					t.Errorf("Complete reports %t, %v; want %t", got, err, test.want)
				}
				if left := content(t, now); left != test.left {
					t.Errorf("the log holds %q, want %q", left, test.left)
				}
			})
		}
	}
}

func TestAnAppendToAFileThatWasRemovedIsNotComplete(t *testing.T) {
	path := filepath.Join(t.TempDir(), "0.log")
	place := appended(t, openLog(t, path), "gone\n")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if got, err := place.Complete(path, 5); got || err != nil {
		t.Errorf("Complete reports %t, %v", got, err)
	}
}
