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

func TestFileThatIsShortIsAPartOfAVolume(t *testing.T) {
	files := newFiles(t)
	put(t, files, "v", 1<<20)
	seen, err := files.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	whole, larger := volume.Spec{ID: "v", Size: 1 << 20}, volume.Spec{ID: "v", Size: 2 << 20}
	if seen.Part(whole) || !seen.Part(larger) || seen.Part(volume.Spec{ID: "none", Size: 1}) {
		t.Error("a part is not what is smaller than the volume")
	}
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
	if err := damageOf(t, files, v); !errors.Is(err, volume.ErrUnavailable) {
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
