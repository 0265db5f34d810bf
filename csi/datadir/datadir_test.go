package datadir_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/datadir"
)

// place is a data directory beside a directory of its witness, neither of which has anything in it.
func place(t *testing.T) datadir.Place {
	t.Helper()
	p := datadir.Place{
		Dir:     filepath.Join(t.TempDir(), "data"),
		Witness: filepath.Join(t.TempDir(), "plugins", "csi.trivet.dev", "data-directory"),
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	return p
}

func mustInstance(t *testing.T, p datadir.Place) string {
	t.Helper()
	instance, err := p.Instance()
	if err != nil {
		t.Fatal(err)
	}
	return instance
}

func checkMismatch(t *testing.T, what string, p datadir.Place) {
	t.Helper()
	instance, err := p.Instance()
	mismatch, ok := errors.AsType[*datadir.Mismatch](err)
	if !ok || !strings.Contains(mismatch.Do, "remove "+p.Witness) || p.Check() == nil {
		t.Errorf("%s: %q, %v", what, instance, err)
	}
}

func TestDirectoryKeepsItsName(t *testing.T) {
	p := place(t)
	name := mustInstance(t, p)
	if again := mustInstance(t, p); again != name || len(name) != 8 {
		t.Errorf("%q, then %q", name, again)
	}

	moved := p
	moved.Dir += "-moved"
	if err := os.Rename(p.Dir, moved.Dir); err != nil {
		t.Fatal(err)
	}
	if again := mustInstance(t, moved); again != name {
		t.Errorf("%q under another path, it was %q", again, name)
	}
}

// One of an earlier version has no witness, and one whose name is torn has lost nothing else.
func TestDirectoryIsKnownWithoutAWitnessOrAName(t *testing.T) {
	p := place(t)
	name := mustInstance(t, p)
	if err := os.Remove(p.Witness); err != nil {
		t.Fatal(err)
	}
	if again := mustInstance(t, p); again != name {
		t.Errorf("%q without a witness, it was %q", again, name)
	}

	if err := os.WriteFile(filepath.Join(p.Dir, "instance"), []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again := mustInstance(t, p); again != name {
		t.Errorf("%q when it was torn, it was %q", again, name)
	}

	// Devices that have a name that is lost cannot be found any more.
	err := errors.Join(os.Remove(p.Witness), os.WriteFile(filepath.Join(p.Dir, "instance"), nil, 0o600))
	if err != nil {
		t.Fatal(err)
	}
	if other := mustInstance(t, p); other == name || len(other) != 8 {
		t.Errorf("%q when all of it was lost, it was %q", other, name)
	}
}

func TestDirectoryThatIsEmptyIsNotNew(t *testing.T) {
	p := place(t)
	name := mustInstance(t, p)
	if err := os.Rename(p.Dir, p.Dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(p.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	checkMismatch(t, "without its disk", p)
	if left, err := os.ReadDir(p.Dir); len(left) > 0 || err != nil {
		t.Errorf("left in it: %v, %v", left, err)
	}

	// The disk is mounted.
	if err := errors.Join(os.Remove(p.Dir), os.Rename(p.Dir+"-away", p.Dir)); err != nil {
		t.Fatal(err)
	}
	if again := mustInstance(t, p); again != name {
		t.Errorf("%q with its disk, it was %q", again, name)
	}
}

// What is in it says that it is not the empty one in its place.
func TestFullDirectoryThatHasLostItsNameHasItAgain(t *testing.T) {
	p := place(t)
	name := mustInstance(t, p)
	lost := errors.Join(os.Mkdir(filepath.Join(p.Dir, "volumes"), 0o700),
		os.Remove(filepath.Join(p.Dir, "instance")))
	if lost != nil {
		t.Fatal(lost)
	}

	if looked, err := p.Name(); looked != name || err != nil || p.Check() != nil {
		t.Errorf("%q for who looks at it, it was %q: %v, %v", looked, name, err, p.Check())
	}
	if again := mustInstance(t, p); again != name {
		t.Errorf("%q, it was %q", again, name)
	}
	if text, err := os.ReadFile(filepath.Join(p.Dir, "instance")); string(text) != name+"\n" {
		t.Errorf("it has %q, %v", text, err)
	}
}

func TestDirectoryThatNobodyHasServedHasNoName(t *testing.T) {
	p := place(t)
	if name, err := p.Name(); name != "" || err != nil {
		t.Errorf("a new one: %q, %v", name, err)
	}

	other := place(t)
	mustInstance(t, other)
	p.Witness = other.Witness
	if name, err := p.Name(); name != "" || err != nil {
		t.Errorf("one in place of another: %q, %v", name, err)
	}
}

func TestAnotherDirectoryIsTakenWhenSomebodySaysSo(t *testing.T) {
	p, other := place(t), place(t)
	mustInstance(t, p)
	name := mustInstance(t, other)
	other.Witness = p.Witness
	checkMismatch(t, "another disk", other)
	if err := os.Remove(p.Witness); err != nil {
		t.Fatal(err)
	}
	if again := mustInstance(t, other); again != name {
		t.Errorf("%q, it was %q", again, name)
	}
}
