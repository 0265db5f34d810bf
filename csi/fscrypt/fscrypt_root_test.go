package fscrypt_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestMain(m *testing.M) { os.Exit(testenv.OwnMounts(m)) }

// newDir is a directory in an ext4 that can encrypt.
func newDir(t *testing.T) *os.File {
	t.Helper()
	testenv.Root(t)
	testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	if err := fscrypt.Supported(); err != nil {
		testenv.Skip(t, "%v", err)
	}

	dir := testenv.ShortDir(t)
	image, root := filepath.Join(dir, "image"), filepath.Join(dir, "root")
	err := errors.Join(
		os.WriteFile(image, nil, 0o600),
		os.Truncate(image, 16<<20),
		os.Mkdir(root, 0o700),
		exec.CommandContext(t.Context(), "mkfs.ext4", "-q", "-F", "-O", "encrypt", image).Run(),
	)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := loop.Attach(image, loop.Options{Tag: "trivet-fscrypt/" + filepath.Base(dir), AutoClear: true})
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := unix.Mount(dev.Name(), root, "ext4", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})

	f := makeDir(t, filepath.Join(root, "d"))
	t.Cleanup(func() { f.Close() })
	return f
}

func makeDir(t *testing.T, path string) *os.File {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newKey(t *testing.T, first byte) (*fscrypt.Key, fscrypt.Identifier) {
	t.Helper()
	k := &fscrypt.Key{first}
	id, err := k.Identifier()
	if err != nil {
		t.Fatal(err)
	}
	return k, id
}

func TestDirectoryIsReadWithItsKeyAlone(t *testing.T) {
	dir := newDir(t)
	key, id := newKey(t, 1)
	if _, encrypted, err := fscrypt.KeyOf(dir); encrypted || err != nil {
		t.Errorf("a new directory is encrypted: %t, %v", encrypted, err)
	}

	// The kernel names the key as we do, or Add fails.
	err := errors.Join(fscrypt.Add(dir, key), fscrypt.Add(dir, key), fscrypt.Encrypt(dir, id))
	if err != nil {
		t.Fatal(err)
	}
	if got, encrypted, err := fscrypt.KeyOf(dir); !encrypted || got != id || err != nil {
		t.Errorf("it has key %x, %t, %v", got, encrypted, err)
	}
	file := filepath.Join(dir.Name(), "f")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}

	// A directory that is open could be read on.
	root, err := os.Open(filepath.Dir(dir.Name()))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	dir.Close()
	for range 2 {
		if busy, err := fscrypt.Remove(root, id); busy || err != nil {
			t.Fatal(busy, err)
		}
	}
	if there, err := fscrypt.Present(root, id); there || err != nil {
		t.Errorf("the key is there: %t, %v", there, err)
	}
	if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its name is there: %v", err)
	}

	if err := fscrypt.Add(root, key); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(file); string(text) != "text" || err != nil {
		t.Errorf("it holds %q, %v", text, err)
	}
}

func TestDirectoryKeepsItsKey(t *testing.T) {
	dir := newDir(t)
	key, id := newKey(t, 1)
	other, otherID := newKey(t, 2)
	err := errors.Join(fscrypt.Add(dir, key), fscrypt.Add(dir, other))
	for range 2 {
		err = errors.Join(err, fscrypt.Encrypt(dir, id))
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := fscrypt.Encrypt(dir, otherID); !errors.Is(err, unix.EEXIST) {
		t.Errorf("it has a second key: %v", err)
	}

	full := makeDir(t, filepath.Join(filepath.Dir(dir.Name()), "full"))
	defer full.Close()
	if err := os.WriteFile(filepath.Join(full.Name(), "f"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := fscrypt.Encrypt(full, id); !errors.Is(err, unix.ENOTEMPTY) {
		t.Errorf("what was there before is encrypted: %v", err)
	}
}

func TestFileThatIsOpenKeepsTheKeyBusy(t *testing.T) {
	dir := newDir(t)
	key, id := newKey(t, 1)
	if err := errors.Join(fscrypt.Add(dir, key), fscrypt.Encrypt(dir, id)); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir.Name(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	if busy, err := fscrypt.Remove(dir, id); !busy || err != nil {
		t.Errorf("busy %t, %v", busy, err)
	}
	f.Close()
}
