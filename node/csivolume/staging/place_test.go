package staging

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// begun is a place where a volume is about to be staged; one of a block volume has what its pods share.
func begun(t *testing.T, root, name string, block bool) Place {
	t.Helper()
	p := Of(root, "d", name)
	if block {
		p = OfBlock(root, name, "d", name)
		must(t, p.record().Write(filepath.Join(filepath.Dir(p.dir), data, "vol_data.json")))
	}
	must(t, p.Begin())
	return p
}

func TestAPlaceKnowsHowFarItIs(t *testing.T) {
	for _, block := range []bool{false, true} {
		p := begun(t, t.TempDir(), "pv", block)
		for _, step := range []struct {
			do              func() error
			staged, mayBeIt bool
		}{
			{func() error { return nil }, false, true},
			{func() error { return p.Finish("boot") }, true, true},
			{p.Begin, false, true},
			{p.End, false, false},
			{p.Forget, false, false},
		} {
			must(t, step.do())
			staged, err := p.Staged("boot")
			must(t, err)
			may, err := p.MayBeStaged()
			must(t, err)
			if staged != step.staged || may != step.mayBeIt {
				t.Errorf("block %v: staged %v, may be %v, want %+v", block, staged, may, step)
			}
		}
	}
}

// The agent or the driver may die at any instruction.
func TestWhatIsLeftOfAStagingIsFound(t *testing.T) {
	for _, block := range []bool{false, true} {
		for what, cut := range map[string]func(Place) error{
			"nothing":            func(Place) error { return nil },
			"the place":          func(p Place) error { return os.RemoveAll(p.Path) },
			"a file of a driver": func(p Place) error { return os.WriteFile(p.Path+"/x", nil, 0o600) },
		} {
			root := t.TempDir()
			p := begun(t, root, "pv", block)
			must(t, cut(p))
			found, unread, err := List(root)
			must(t, err)
			diff := cmp.Diff([]Place{p}, found, cmp.AllowUnexported(Place{}))
			if diff != "" || unread != nil {
				t.Errorf("block %v, %s: %v, %s", block, what, unread, diff)
			}
		}
	}
}

func TestWhatHasNoWholeRecordIsRemovedFromTheList(t *testing.T) {
	for _, block := range []bool{false, true} {
		root := t.TempDir()
		p := begun(t, root, "torn", block)
		must(t, os.Truncate(p.file(), 0))
		must(t, os.WriteFile(filepath.Join(p.dir, ".tmp-vol_data.json-1"), nil, 0o600))
		if block {
			must(t, os.Truncate(p.sharedFile(), 0))
		}
		must(t, os.MkdirAll(filepath.Join(Devices(root), "empty"), 0o700))
		found, unread, err := List(root)
		must(t, err)
		if len(found) > 0 || len(unread) > 0 {
			t.Errorf("block %v: found %v, unread %v", block, found, unread)
		}
		for _, dir := range []string{p.dir, p.Path, filepath.Join(Devices(root), "empty")} {
			if _, err := os.Lstat(dir); err == nil {
				t.Errorf("block %v: %s is still there", block, dir)
			}
		}
	}
}

func TestWhatOthersHavePutWhereVolumesAreStagedStays(t *testing.T) {
	for _, block := range []bool{false, true} {
		for _, where := range []func(Place) string{
			func(p Place) string { return p.Path },
			func(p Place) string { return p.dir },
		} {
			root := t.TempDir()
			p := begun(t, root, "torn", block)
			foreign := filepath.Join(where(p), "vol_data.json.old")
			must(t, os.WriteFile(foreign, nil, 0o600))
			must(t, os.Truncate(p.file(), 0))
			if block {
				must(t, os.Truncate(p.sharedFile(), 0))
			}
			found, unread, err := List(root)
			must(t, err)
			if len(found) > 0 || len(unread) != 1 {
				t.Errorf("block %v: found %v, unread %v", block, found, unread)
			}
			_, err = os.Lstat(foreign)
			must(t, err)
		}
	}
}

// A power loss may tear one of two records, and not the other.
func TestABlockVolumeIsFoundByTheRecordOfItsStaging(t *testing.T) {
	root := t.TempDir()
	p := begun(t, root, "pv", true)
	must(t, os.Truncate(p.sharedFile(), 0))
	found, unread, err := List(root)
	must(t, err)
	diff := cmp.Diff([]Place{p}, found, cmp.AllowUnexported(Place{}))
	if diff != "" || unread != nil {
		t.Errorf("unread %v, %s", unread, diff)
	}

	another := OfBlock(root, "pv", "d", "another")
	must(t, another.record().Write(p.sharedFile()))
	found, unread, err = List(root)
	must(t, err)
	if len(found) > 0 || len(unread) != 1 {
		t.Errorf("found %v by records of two volumes, unread %v", found, unread)
	}
}

func TestAForgottenBlockVolumeTakesNoOtherAlong(t *testing.T) {
	root := t.TempDir()
	other := begun(t, root, "other", true)
	for _, name := range []string{"publish", "pv"} {
		p := begun(t, root, name, true)
		must(t, os.MkdirAll(filepath.Join(Devices(root), "publish", "other", "uid"), 0o700))
		must(t, p.Forget())
	}

	found, _, err := List(root)
	must(t, err)
	if len(found) != 1 || found[0].Spec != other.Spec {
		t.Errorf("left %v", found)
	}
	if _, err := os.Lstat(filepath.Join(Devices(root), "publish", "other", "uid")); err != nil {
		t.Error(err)
	}
}

// The disk may be full when a driver fails again.
func TestTheRecordOfAnUnstagingIsWrittenOnce(t *testing.T) {
	p := begun(t, t.TempDir(), "pv", false)
	must(t, p.Finish("boot"))
	must(t, p.BeginUnstaging())
	if staged, err := p.Staged("boot"); staged || err != nil {
		t.Errorf("staged %v, error %v", staged, err)
	}

	before, err := os.Stat(p.file())
	must(t, err)
	must(t, p.BeginUnstaging())
	after, err := os.Stat(p.file())
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("the record was written again")
	}
}

func TestAnotherVolumeIsNotTakenForTheOneThatIsStaged(t *testing.T) {
	root := t.TempDir()
	p := begun(t, root, "pv", true)
	must(t, p.Finish("boot"))
	for _, another := range []Place{
		OfBlock(root, "pv", "d", "another"),
		OfBlock(root, "pv", "another", "pv"),
	} {
		staged, err := another.Staged("boot")
		if staged || !errors.Is(err, ErrTaken) {
			t.Errorf("staged %v, error %v", staged, err)
		}
		if err := another.Check(); !errors.Is(err, ErrTaken) {
			t.Errorf("check: %v", err)
		}

		// One that was there before is looked at once more.
		u := New(Config{Used: func(Place) (bool, error) { return false, errors.New("asked") }})
		must(t, u.unstage(t.Context(), another))
	}

	staged, err := p.Staged("boot")
	must(t, errors.Join(err, p.Check()))
	if !staged {
		t.Error("the volume is not staged any more")
	}
}

func TestAPlaceIsLockedForAllVolumesOfIt(t *testing.T) {
	u := New(Config{})
	p := OfBlock("/root", "pv", "d", "1")
	unlock, err := u.Lock(t.Context(), p)
	must(t, err)
	late, cancel := context.WithCancel(t.Context())
	cancel()
	for _, other := range []Place{OfBlock("/root", "pv", "d", "2"), OfBlock("/root", "another", "d", "1")} {
		if _, err := u.Lock(late, other); err == nil {
			t.Errorf("%v is not locked", other)
		}
	}

	unlock()
	for _, other := range []Place{OfBlock("/root", "pv", "d", "2"), OfBlock("/root", "another", "d", "1")} {
		_, err := u.Lock(t.Context(), other)
		must(t, err)
	}
}
