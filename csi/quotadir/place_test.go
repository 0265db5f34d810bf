package quotadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// damageOf is what a look says of a volume.
func damageOf(t *testing.T, p place, id string) error {
	t.Helper()
	seen, err := p.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	return seen.Of(volume.Spec{ID: id})
}

// Without the directory of all of them, whose disk may not be mounted, no volume is lost.
func TestVolumesAreNotLostWithTheirDirectory(t *testing.T) {
	p := place{volumes: t.TempDir()}
	if err := os.Mkdir(filepath.Join(p.volumes, nameOf("v", firstNumber)), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := damageOf(t, p, "v"); err != nil {
		t.Errorf("one that is there: %v", err)
	}
	if err := damageOf(t, p, "none"); !errors.Is(err, volume.ErrLost) {
		t.Errorf("one that is not: %v", err)
	}

	if err := os.RemoveAll(p.volumes); err != nil {
		t.Fatal(err)
	}
	if err := damageOf(t, p, "v"); !errors.Is(err, volume.ErrDamaged) || errors.Is(err, volume.ErrLost) {
		t.Errorf("without the directory: %v", err)
	}
}

func TestNumberOfADirectoryThatComesBackIsFound(t *testing.T) {
	p, n := place{volumes: t.TempDir()}, newNumbers("one")
	if p.findAgain(n, "v") {
		t.Error("found before it was there")
	}
	if err := os.Mkdir(filepath.Join(p.volumes, nameOf("v", firstNumber+7)), 0o700); err != nil {
		t.Fatal(err)
	}
	if !p.findAgain(n, "v") {
		t.Error("not found")
	}
	if project, known := n.of("v"); !known || project != firstNumber+7 {
		t.Errorf("its project is %d, %t", project, known)
	}
	if p.findAgain(n, "v") {
		t.Error("found twice: its number would count for two directories")
	}
}
