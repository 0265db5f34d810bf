package keyfile_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/keyfile"
	"github.com/trivet-node/trivet/csi/volume"
)

const secret = "a Secret that is long enough to have a key in it"

func key(t *testing.T, d keyfile.Dir, id, secret string) fscrypt.Key {
	t.Helper()
	k, err := d.Key(id, secret)
	if err != nil {
		t.Fatal(err)
	}
	return *k
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func TestKeyFollowsFromBothHalves(t *testing.T) {
	d := keyfile.In(t.TempDir(), "image")
	must(t, d.Make("a"), d.Make("b"), d.Copy("copy", "a"))
	a := key(t, d, "a", secret)
	if key(t, d, "a", secret) != a || key(t, d, "copy", secret) != a {
		t.Error("the same halves have two keys")
	}
	if key(t, d, "b", secret) == a || key(t, d, "a", secret+"!") == a {
		t.Error("other halves have the same key")
	}

	must(t, d.Make("a"))
	if key(t, d, "a", secret) == a {
		t.Error("the key file of a new volume is that of an old one")
	}
}

// What is derived must never change: volumes could not be read any more.
func TestKeyIsDerivedAsEver(t *testing.T) {
	d := keyfile.In(t.TempDir(), "image")
	half := bytes.Repeat([]byte("half"), 1024)
	must(t, d.Make("a"), os.WriteFile(filepath.Join(string(d), "a"), half, 0o600))
	k := key(t, d, "a", secret)
	id, err := k.Identifier()
	if err != nil {
		t.Fatal(err)
	}
	got := hex.EncodeToString(k[:8]) + " " + hex.EncodeToString(id[:])
	if want := "4f83c903c8957d1b 51fcb298f0f60ebe927f34ce2446ff29"; got != want {
		t.Errorf("it is %s, want %s", got, want)
	}
	if k.Clear(); k != (fscrypt.Key{}) {
		t.Error("it is not cleared")
	}
}

func TestSecretThatCanHaveNoKeyIsRefused(t *testing.T) {
	d := keyfile.In(t.TempDir(), "image")
	must(t, d.Make("pvc-1"))
	for _, given := range []string{"", "s3cret", strings.Repeat("x", 31), strings.Repeat("x", 4097)} {
		_, err := d.Key("pvc-1", given)
		if !errors.Is(err, volume.ErrKey) || !strings.Contains(err.Error(), "pvc-1") {
			t.Errorf("%d bytes: %v", len(given), err)
		}
		if given != "" && strings.Contains(err.Error(), given) {
			t.Errorf("the error has the Secret: %v", err)
		}
	}
	for _, given := range []string{"x", "\x00", "ä", "\n"} {
		key(t, d, "pvc-1", strings.Repeat(given, 32))
		key(t, d, "pvc-1", strings.Repeat(given, 4096/len(given)))
	}
}

func TestErasedKeyFileIsGoneAndOverwritten(t *testing.T) {
	d := keyfile.In(t.TempDir(), "image")
	must(t, d.Make("a"), d.Make("b"))
	open, err := os.Open(filepath.Join(string(d), "a"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()

	must(t, d.Erase("a"), d.Erase("a"), d.Erase("never there"), d.Check("b"))
	left := make([]byte, 4097)
	if n, _ := open.Read(left); n != 4096 || !bytes.Equal(left, make([]byte, 4097)) {
		t.Errorf("it has %d bytes that are not zero", n)
	}
	if err := d.Check("a"); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("it is there: %v", err)
	}
	if _, err := d.Key("a", secret); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("it has a key: %v", err)
	}
}

// A killed process leaves a part of a key file, which no volume has been acknowledged with.
func TestPartOfAKeyFileIsNone(t *testing.T) {
	d := keyfile.In(t.TempDir(), "image")
	must(t, d.Make("a"), os.Truncate(filepath.Join(string(d), "a"), 4095))
	if err := d.Check("a"); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("it is whole: %v", err)
	}
	if err := d.Copy("b", "a"); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("it is copied: %v", err)
	}
	must(t, d.Make("a"), d.Check("a"), d.Copy("b", "a"), d.Check("b"))
}

// A process that is killed while it erases a key file leaves one of zeroes.
func TestErasedHalfIsNone(t *testing.T) {
	d := keyfile.In(t.TempDir(), "image")
	must(t, d.Make("a"), os.WriteFile(filepath.Join(string(d), "a"), make([]byte, 4096), 0o600))
	_, err := d.Key("a", secret)
	for what, err := range map[string]error{
		"there":   d.Check("a"),
		"copied":  d.Copy("b", "a"),
		"derived": err,
	} {
		if !errors.Is(err, volume.ErrDamaged) {
			t.Errorf("it is %s: %v", what, err)
		}
	}
	must(t, d.Erase("a"), d.Make("a"), d.Check("a"))
}

func TestKeyFilesAreRootsAlone(t *testing.T) {
	dir := t.TempDir()
	d := keyfile.In(dir, "image")
	must(t, d.Make("a"))
	for path, want := range map[string]os.FileMode{
		"keys":         0o700,
		"keys/image":   0o700,
		"keys/image/a": 0o600,
	} {
		if st, err := os.Stat(filepath.Join(dir, path)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, st.Mode(), err)
		}
	}
}
