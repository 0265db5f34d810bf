package target_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

// mountOn clones the mount of a directory onto a point.
func mountOn(t *testing.T, p *target.Point, source string, o target.Options) {
	t.Helper()
	f, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	tree, err := target.Clone(f, o)
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()

	if err := errors.Join(p.MakeDir(), tree.Attach(p)); err != nil {
		t.Fatal(err)
	}
}

func TestAllThatIsStackedOnAPointIsCleared(t *testing.T) {
	testenv.Root(t)
	root, dir := openRoot(t)
	p := point(t, root, filepath.Join(dir, "p"))
	for _, readOnly := range []bool{false, true} {
		mountOn(t, p, t.TempDir(), target.Options{ReadOnly: readOnly})
		if s, err := p.State(); err != nil || !s.Mounted || s.ReadOnly != readOnly {
			t.Errorf("read-only %t: state %+v, %v", readOnly, s, err)
		}
	}

	for range 2 {
		if err := p.Clear(); err != nil {
			t.Fatal(err)
		}
		if s, err := p.State(); err != nil || s.Mounted {
			t.Errorf("cleared: state %+v, %v", s, err)
		}
	}
}

func TestMountInUseIsBusy(t *testing.T) {
	testenv.Root(t)
	root, dir := openRoot(t)
	p := point(t, root, filepath.Join(dir, "p"))
	mountOn(t, p, t.TempDir(), target.Options{})
	user, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Clear(); !errors.Is(err, target.ErrBusy) {
		t.Errorf("error %v", err)
	}

	user.Close()
	if err := p.Remove(); err != nil {
		t.Error(err)
	}
}

func TestTreeThatIsNotAttachedIsGone(t *testing.T) {
	testenv.Root(t)
	root, dir := openRoot(t)
	f, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	tree, err := target.Clone(f, target.ParseOptions([]string{"nodev,noatime"}))
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}

	p := point(t, root, filepath.Join(dir, "p"))
	if s, err := p.State(); err != nil || s.Mounted {
		t.Errorf("state %+v, %v", s, err)
	}
}

func TestOptionsOfAFileSystemAreCheckedWithoutMounting(t *testing.T) {
	testenv.Root(t)
	for option, ok := range map[string]bool{"size=1m": true, "nonsense": false, "source=/dev/sda": false} {
		o := target.ParseOptions([]string{option})
		if err := target.CheckOptions("tmpfs", o); (err == nil) != ok {
			t.Errorf("%s: %v", option, err)
		}
	}
	if err := target.Supported(); err != nil {
		t.Error(err)
	}
}
