package tuning

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trivet-node/trivet/cni/ipam"
)

// A file of somebody else, or half of one, makes no DEL and no GC fail.
func FuzzBackup(f *testing.F) {
	for _, text := range []string{
		`{}`,
		`{"network":"n","owner":{"containerID":"a","ifName":"eth0"},"mtu":1500}`,
		`{"mtu":"x"}`,
		`[`,
		``,
	} {
		f.Add([]byte(text))
	}

	owner := ipam.Owner{ContainerID: "a", IfName: "eth0"}
	f.Fuzz(func(t *testing.T, data []byte) {
		b := Backups{Dir: t.TempDir()}
		if err := os.WriteFile(b.file(owner), data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := read(b.file(owner)); ok && !json.Valid(data) {
			t.Errorf("%q is read, and is no JSON", data)
		}
		if err := b.Keep("n", nil); err != nil {
			t.Error(err)
		}
		if err := b.Remove(owner); err != nil {
			t.Error(err)
		}
	})
}

func TestGCRemovesWhatKilledWritersHaveLeft(t *testing.T) {
	b := Backups{Dir: t.TempDir()}
	past := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		at   time.Time
		stay bool
	}{
		".tmp-abc_eth0.json-1": {past, false},
		".tmp-abc_eth0.json-2": {time.Now(), true},
		".tmp-other":           {past, true},
	} {
		file := filepath.Join(b.Dir, name)
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, c.at, c.at); err != nil {
			t.Fatal(err)
		}

		if err := b.Keep("n", nil); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(file); (err == nil) != c.stay {
			t.Errorf("%s: %v", name, err)
		}
	}
}
