package projectquota_test

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/trivet-node/trivet/internal/projectquota"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestFileSystemsWithoutProjectQuotasAreUnsupported(t *testing.T) {
	for name, dir := range map[string]string{"disk": t.TempDir(), "tmpfs": testenv.MemoryDir(t)} {
		err := projectquota.Assign(dir)
		if err == nil {
			t.Skipf("the file system of %s has project quotas", dir)
		}
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := projectquota.Of(dir); !errors.Is(err, projectquota.ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := projectquota.Of(dir + "/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
