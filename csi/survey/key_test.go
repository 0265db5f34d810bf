package survey

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/keyfile"
)

func TestKeyFilesAreFound(t *testing.T) {
	dir := t.TempDir()
	if found, err := keysIn(filepath.Join(dir, "keys")); len(found) > 0 || err != nil {
		t.Errorf("where there are none: %v, %v", found, err)
	}
	for _, backend := range []string{"image", "btrfs"} {
		if err := keyfile.In(dir, backend).Make("vol-1"); err != nil {
			t.Fatal(err)
		}
	}

	found, err := keysIn(filepath.Join(dir, "keys"))
	want := []Key{
		{filepath.Join(dir, "keys/btrfs/vol-1"), "btrfs", "vol-1"},
		{filepath.Join(dir, "keys/image/vol-1"), "image", "vol-1"},
	}
	if !slices.Equal(found, want) || err != nil {
		t.Errorf("found %v, %v", found, err)
	}
	if others, err := othersIn(dir); len(others) > 0 || err != nil {
		t.Errorf("the driver knows nothing of %v, %v", others, err)
	}
}
