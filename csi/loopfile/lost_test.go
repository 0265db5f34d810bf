package loopfile

import (
	"errors"
	"os"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// damageOf is what a look says of a volume.
func damageOf(t *testing.T, files *Files, s volume.Spec) error {
	t.Helper()
	seen, err := files.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	return seen.Of(s)
}

// Without the directory, whose disk may not be mounted, nothing is lost, and nothing is deleted.
func TestVolumesAreNotLostWithTheirDirectory(t *testing.T) {
	files := newFiles(t)
	put(t, files, "v", 1<<20)
	v, none := volume.Spec{ID: "v"}, volume.Spec{ID: "none"}
	if err := damageOf(t, files, v); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := damageOf(t, files, none); !errors.Is(err, volume.ErrLost) {
		t.Errorf("one that is not: %v", err)
	}
	if err := files.Destroy("none"); err != nil {
		t.Errorf("deleting it: %v", err)
	}

	if err := os.Rename(files.dir, files.dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := damageOf(t, files, v); !errors.Is(err, volume.ErrDamaged) || errors.Is(err, volume.ErrLost) {
		t.Errorf("without the directory: %v", err)
	}
	if err := files.Destroy("v"); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("deleting it without the directory: %v", err)
	}

	if err := os.Rename(files.dir+"-away", files.dir); err != nil {
		t.Fatal(err)
	}
	if err := damageOf(t, files, v); err != nil {
		t.Errorf("with the directory: %v", err)
	}
}
