package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestWhatIsNotAWholeRecordCountsAsNone(t *testing.T) {
	file := filepath.Join(t.TempDir(), File)
	for _, text := range []string{"", "{", `{"driverName":"d"}`, `{"volumeHandle":"h"}`} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, found, err := Read(file); found || err != nil {
			t.Errorf("%q: found %v, error %v", text, found, err)
		}
	}
}

func TestARecordHoldsInTheBootInWhichItWasFinished(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "volume", File)
	if err := (Record{Driver: "d", Handle: "h"}).Finish("boot-1", dir, file); err != nil {
		t.Fatal(err)
	}

	r, found, err := Read(file)
	if !found || err != nil {
		t.Fatalf("found %v, error %v", found, err)
	}
	for boot, want := range map[string]bool{"boot-1": true, "boot-2": false} {
		if holds, err := r.Holds(boot, dir); holds != want || err != nil {
			t.Errorf("%s: holds %v, error %v", boot, holds, err)
		}
	}

	r.Mounted = "true"
	if holds, err := r.Holds("boot-1", dir); holds || err != nil {
		t.Errorf("holds %v without the mount, error %v", holds, err)
	}
}

func TestTheRecordOfADirectoryIsRemovedLast(t *testing.T) {
	testenv.Root(t)
	dir := filepath.Join(testenv.ShortDir(t), "volume")
	file := filepath.Join(dir, File)
	must(t, Record{Driver: "d", Handle: "h"}.Write(file))
	for _, name := range []string{"a", "z"} {
		path := filepath.Join(dir, name)
		must(t, os.Mkdir(path, 0o700))
		must(t, mount.Tmpfs(path, "mode=0755"))
		if err := RemoveDir(dir); !errors.Is(err, removal.ErrMounted) {
			t.Errorf("%s: error %v", name, err)
		}
		_, err := os.Lstat(file)
		must(t, err)
		must(t, mount.Unmount(path))
	}

	for range 2 {
		must(t, RemoveDir(dir))
	}
	if _, err := os.Lstat(dir); err == nil {
		t.Error("the directory is still there")
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
