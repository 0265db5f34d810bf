package tuning

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

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
