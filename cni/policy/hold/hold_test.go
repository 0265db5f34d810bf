package hold_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/cni/ipam"
	"github.com/trivet-node/trivet/cni/policy/hold"
)

// An ADD was killed before the record had its name.
func TestGCRemovesWhatKilledWritersHaveLeft(t *testing.T) {
	pool, err := ipam.Location{DataDir: t.TempDir(), Network: "test"}.Create()
	if err != nil {
		t.Fatal(err)
	}

	left := filepath.Join(pool.PolicyDir(), ipam.PodsDir, ".tmp-0123456789abcdef-1")
	if err := os.MkdirAll(filepath.Dir(left), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(left, []byte(`{"owner":`), 0o644); err != nil {
		t.Fatal(err)
	}

	everyone := func(ipam.Owner) bool { return true }
	if err := (hold.Network{Name: "test", Pool: pool}).Keep(everyone); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(left); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v", left, err)
	}
}
