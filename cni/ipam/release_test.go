package ipam_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
)

// One was killed while it noted the boot, another one while it reserved an address without O_TMPFILE. What
// has another program's name stays.
func TestGCRemovesWhatKilledWritersHaveLeft(t *testing.T) {
	dir := t.TempDir()
	p := open(t, dir)
	for name, stays := range map[string]bool{
		".tmp-.boot_id-1": false,
		".new-1":          false,
		".tmp-other-1":    true,
	} {
		file := filepath.Join(dir, "net", name)
		if err := os.WriteFile(file, []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := p.Keep(func(ipam.Owner) bool { return true }); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) == stays {
			t.Errorf("%s: %v", name, err)
		}
	}
}
