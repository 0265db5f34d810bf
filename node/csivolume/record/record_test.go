package record

import (
	"os"
	"path/filepath"
	"testing"
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
