package survey

import (
	"os"
	"testing"

	"github.com/trivet-node/trivet/csi/quotadir"
)

// A directory that is not there has not no volumes.
func TestDirectoryOfQuotasThatIsNotThereIsTold(t *testing.T) {
	dir := t.TempDir()
	if q, err := lookAtQuota(dir); err != nil || q.Volumes != nil {
		t.Errorf("none: %v, %v", q, err)
	}
	volumes, _ := quotadir.Paths(dir)
	if err := os.MkdirAll(volumes, 0o700); err != nil {
		t.Fatal(err)
	}
	if q, err := lookAtQuota(dir); err != nil || q.Volumes == nil {
		t.Errorf("an empty one: %v, %v", q, err)
	}
}
