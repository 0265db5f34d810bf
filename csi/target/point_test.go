package target_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/target"
)

func openRoot(t *testing.T) (root *target.Root, dir string) {
	t.Helper()
	dir = t.TempDir()
	root, err := target.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root, dir
}

func point(t *testing.T, root *target.Root, path string) *target.Point {
	t.Helper()
	p, err := root.Point(path, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func TestPathsLeadNowhereElse(t *testing.T) {
	root, dir := openRoot(t)
	other := t.TempDir()
	err := errors.Join(
		os.Symlink(other, filepath.Join(dir, "absolute")),
		os.Symlink(".", filepath.Join(dir, "here")),
		os.WriteFile(filepath.Join(dir, "file"), nil, 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}

	for _, path := range []string{
		"", "/", "relative", other, dir, dir + "/..", dir + "/../x", dir + "/a/../../x", dir + "//a",
		dir + "/a/./b", dir + "/a\x00b", dir + "/absolute/x", dir + "/here/x", dir + "/file/x", dir + "x/y",
	} {
		for _, create := range []bool{false, true} {
			if p, err := root.Point(path, create); !errors.Is(err, target.ErrOutside) {
				t.Errorf("%q, create %t: %v, %v", path, create, p, err)
			}
		}
	}

	if entries, err := os.ReadDir(other); len(entries) > 0 || err != nil {
		t.Errorf("made elsewhere: %v, %v", entries, err)
	}
}

func TestDirectoriesOnTheWayAreMadeOnDemand(t *testing.T) {
	root, dir := openRoot(t)
	path := filepath.Join(dir, "a", "b", "c")
	if _, err := root.Point(path, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}

	p := point(t, root, path)
	if p.String() != path {
		t.Errorf("the point is %s", p)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last component is made, too: %v", err)
	}

	for range 2 {
		if err := p.MakeDir(); err != nil {
			t.Fatal(err)
		}
	}

	for _, d := range []string{filepath.Dir(filepath.Dir(path)), filepath.Dir(path), path} {
		if st, err := os.Stat(d); err != nil || st.Mode().Perm()&^0o750 != 0 {
			t.Errorf("%s: %v, %v", d, st.Mode(), err)
		}
	}
}

func TestStateWithoutAMount(t *testing.T) {
	root, dir := openRoot(t)
	p := point(t, root, filepath.Join(dir, "p"))
	if s, err := p.State(); s != (target.State{}) || err != nil {
		t.Errorf("of nothing: %+v, %v", s, err)
	}
	if err := p.MakeDir(); err != nil {
		t.Fatal(err)
	}

	var st unix.Stat_t
	if err := unix.Stat(p.String(), &st); err != nil {
		t.Fatal(err)
	}
	if s, err := p.State(); err != nil || s.Mounted || s.Inode != st.Ino || s.Device != st.Dev {
		t.Errorf("of a directory: %+v, %v", s, err)
	}

	link := point(t, root, filepath.Join(dir, "link"))
	if err := os.Symlink("p", link.String()); err != nil {
		t.Fatal(err)
	}
	if s, err := link.State(); !errors.Is(err, target.ErrOutside) {
		t.Errorf("of a link: %+v, %v", s, err)
	}
}

func TestRemoveTakesOnlyWhatIsEmpty(t *testing.T) {
	root, dir := openRoot(t)
	empty, file := point(t, root, filepath.Join(dir, "empty")), point(t, root, filepath.Join(dir, "file"))
	full, data := point(t, root, filepath.Join(dir, "full")), point(t, root, filepath.Join(dir, "data"))
	err := errors.Join(
		empty.MakeDir(),
		file.MakeFile(),
		file.MakeFile(),
		os.Mkdir(full.String(), 0o700),
		os.WriteFile(filepath.Join(full.String(), "f"), nil, 0o600),
		os.WriteFile(data.String(), []byte("data"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}

	for range 2 {
		if err := errors.Join(empty.Remove(), file.Remove()); err != nil {
			t.Error(err)
		}
	}

	for _, p := range []*target.Point{full, data} {
		if err := p.Remove(); err == nil {
			t.Errorf("%s is removed with what was in it", p)
		}
		if _, err := os.Lstat(p.String()); err != nil {
			t.Error(err)
		}
	}
}
