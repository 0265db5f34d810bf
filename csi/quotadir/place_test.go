package quotadir

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// damageOf is what a look says of a volume.
func damageOf(t *testing.T, p *place, id string) error {
	t.Helper()
	seen, err := p.Inspect()
	if err != nil {
		t.Fatal(err)
	}
	return seen.Of(volume.Spec{ID: id})
}

// Without the directory of all of them, whose disk may not be mounted, no volume is lost.
func TestVolumesAreNotLostWithTheirDirectory(t *testing.T) {
	p := &place{volumes: t.TempDir()}
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
	p, n := &place{volumes: t.TempDir()}, newNumbers("one")
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

// isThere reports whether there is something of the backend in a data directory.
func isThere(t *testing.T, dataDir string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(dataDir, "quota"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return err == nil
}

func TestDirectoriesAreMadeOnce(t *testing.T) {
	dir, p := t.TempDir(), &place{}
	p.volumes, p.deleted = Paths(dir)
	if err := p.lack(); err != nil || isThere(t, dir) {
		t.Errorf("before there is a volume: %v", err)
	}

	if err := p.makeOnce(); err != nil {
		t.Fatal(err)
	}
	for _, made := range []string{p.volumes, p.deleted} {
		if st, err := os.Stat(made); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", made, st, err)
		}
	}
	if err := p.lack(); err != nil {
		t.Error(err)
	}

	if err := os.RemoveAll(filepath.Join(dir, "quota")); err != nil {
		t.Fatal(err)
	}
	if err := p.makeOnce(); err != nil || isThere(t, dir) {
		t.Errorf("they were made in place of others: %v", err)
	}
	if err := p.lack(); !errors.Is(err, volume.ErrUnavailable) {
		t.Errorf("without them: %v", err)
	}
}

// The directories of volumes may be on a disk that is not mounted, whatever the one has that is there.
func TestNothingIsMadeInPlaceOfVolumes(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(Config{Dir: dir, Instance: "test", Held: true})
	if err != nil {
		t.Fatal(err)
	}

	v := volume.Spec{ID: "v", Size: 1 << 20}
	_, recovered := d.Recover(v, volume.Origin{})
	_, looked := d.Empty(v.ID)
	_, made := d.Create(v)
	for what, err := range map[string]error{
		"check":   d.Check(false),
		"recover": recovered,
		"look":    looked,
		"create":  made,
		"destroy": d.Destroy(v.ID),
	} {
		if !errors.Is(err, volume.ErrUnavailable) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := d.Commit(); err == nil {
		t.Error("what was deleted was committed without them")
	}
	if isThere(t, dir) {
		t.Error("directories were made")
	}
}

// A deletion that was begun while they were not there is finished when they are.
func TestVolumeThatIsThereLaterIsDestroyed(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(Config{Dir: dir, Instance: "test", Held: true})
	if err != nil {
		t.Fatal(err)
	}
	name := nameOf("v", firstNumber)
	err = errors.Join(os.MkdirAll(filepath.Join(d.volumes, name), 0o700), os.MkdirAll(d.deleted, 0o700))
	if err != nil {
		t.Fatal(err)
	}

	if err := errors.Join(d.Destroy("v"), d.Commit()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(filepath.Join(d.deleted, name)); err != nil {
		t.Errorf("it was not moved aside: %v", err)
	}
}
