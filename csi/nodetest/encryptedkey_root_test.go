package nodetest_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
)

// shutDown has a mounted file system of a disk that does not answer any more (EXT4_IOC_SHUTDOWN).
func shutDown(t *testing.T, path string) {
	t.Helper()
	const shutdown, noLogFlush = 0x8004587d, 2
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.IoctlSetPointerInt(int(dir.Fd()), shutdown, noLogFlush); err != nil {
		t.Fatal(err)
	}
}

func isMounted(t *testing.T, path string) bool {
	t.Helper()
	var st unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, 0, 0, &st); err != nil {
		t.Fatal(err)
	}
	return st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}

// What cannot be asked for a key is unmounted all the same.
func TestEncryptedVolumeIsUnstagedThoughItsKeyCannotBeTaken(t *testing.T) {
	n := newEncrypted(t)
	for name, disturb := range map[string]func(path string) error{
		"dead disk": func(path string) error {
			shutDown(t, path)
			return nil
		},
		"other mount": func(path string) error { return unix.Mount("other", path, "tmpfs", 0, "") },
	} {
		for _, kind := range kinds {
			v := written(n, kind)
			path := n.StagePath(v.ID)
			if err := errors.Join(
				n.Unpublish(t.Context(), v.ID, n.Target(v.ID, "a")),
				disturb(path),
			); err != nil {
				t.Fatal(err)
			}

			first := n.Unstage(t.Context(), v.ID, path)
			if isMounted(t, path) {
				t.Errorf("%s, %s: it is mounted after %v", name, kind, first)
			}
			if err := n.Unstage(t.Context(), v.ID, path); err != nil {
				t.Errorf("%s, %s: it is never unstaged: %v, %v", name, kind, first, err)
			}
			n.Remove(v.ID)
		}
	}
}

// An Unstage takes the key before it finds that the file system is in use.
func TestEncryptedVolumeIsPublishedWithItsKeyOnly(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)
		path := n.StagePath(v.ID)
		busy, err := os.Open(filepath.Join(path, "f"))
		if err != nil {
			t.Fatal(err)
		}
		defer busy.Close()
		if err := n.Unpublish(t.Context(), v.ID, n.Target(v.ID, "a")); err != nil {
			t.Fatal(err)
		}
		if err := n.Unstage(t.Context(), v.ID, path); !errors.Is(err, target.ErrBusy) {
			t.Errorf("%s: it is unstaged while it is in use: %v", kind, err)
		}

		u := publish.Use{Access: v.Access}
		if err := n.Publish(t.Context(), v.ID, n.Target(v.ID, "b"), u); !errors.Is(err, volume.ErrNotStaged) {
			t.Errorf("%s: a pod gets what it cannot read: %v", kind, err)
		}
		checkUse(n, v, "b")
		busy.Close()
		n.Remove(v.ID, "b")
	}
}

// keyOf names the key of an encrypted volume that is mounted on path.
func keyOf(t *testing.T, path string) fscrypt.Identifier {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	id, is, err := fscrypt.KeyOf(dir)
	if err != nil || !is {
		t.Fatal(is, err)
	}
	return id
}

// keyIn reports whether the file system that is mounted on path has the key of the volume in it.
func keyIn(t *testing.T, path string) bool {
	t.Helper()
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	there, err := fscrypt.Present(dir, keyOf(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return there
}

// The file system in which the volume is may be on the staging path, see showFileSystem.
func TestKeyGoesWhenWhatIsHalfStagedIsUnstaged(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)
		other := elsewhere(n, v)
		if err := n.Unpublish(t.Context(), v.ID, n.Target(v.ID, "a")); err != nil {
			t.Fatal(err)
		}
		showFileSystem(t, n, v)
		if !keyIn(t, other) {
			t.Fatalf("%s: there is no key", kind)
		}

		if err := n.Unstage(t.Context(), v.ID, n.StagePath(v.ID)); err != nil {
			t.Fatal(err)
		}
		if keyIn(t, other) {
			t.Errorf("%s: the key is there", kind)
		}
		if err := unix.Unmount(other, 0); err != nil {
			t.Fatal(err)
		}
		n.Remove(v.ID)
	}
}

// elsewhere mounts a staged volume at another place, as a program that was started meanwhile has it.
func elsewhere(n *nodetest.Node, v volume.Volume) string {
	n.T.Helper()
	other := filepath.Join(n.Dir, "other-"+v.ID)
	err := errors.Join(
		os.Mkdir(other, 0o700),
		unix.Mount(n.StagePath(v.ID), other, "", unix.MS_BIND, ""),
	)
	if err != nil {
		n.T.Fatal(err)
	}
	return other
}

// An earlier version of the driver, which knows nothing of key files, has deleted the volume.
func TestKeyFileThatWasLeftBehindIsErasedByItsID(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		left, err := os.Open(keyFileOf(n, v))
		if err != nil {
			t.Fatal(err)
		}
		defer left.Close()
		n.Kill()
		if err := errors.Join(
			os.Remove(filepath.Join(n.Dir, "volumes", v.ID+".json")),
			os.Remove(imageOf(n, v)),
		); err != nil {
			t.Fatal(err)
		}
		if kind == "btrfs" {
			if err := os.Remove(filepath.Dir(imageOf(n, v))); err != nil {
				t.Fatal(err)
			}
		}
		n.Start()

		// What nobody knows stays until somebody says that it is to go.
		if _, err := os.Lstat(keyFileOf(n, v)); err != nil {
			t.Error(err)
		}
		if err := n.Delete(t.Context(), v.ID); err != nil {
			t.Error(err)
		}
		data, err := io.ReadAll(left)
		if err != nil || !bytes.Equal(data, make([]byte, 4096)) {
			t.Errorf("%s: it has %d bytes, %v", kind, len(data), err)
		}
		if _, err := os.Lstat(keyFileOf(n, v)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: it is there: %v", kind, err)
		}
	}
}

// e2fsck puts directories into lost+found that no other leads to.
func TestEncryptedVolumeWithoutItsDirectoryIsNotAnEmptyOne(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)
		if err := n.Unpublish(t.Context(), v.ID, n.Target(v.ID, "a")); err != nil {
			t.Fatal(err)
		}
		path := n.StagePath(v.ID)
		showFileSystem(t, n, v)
		dir, found := filepath.Join(path, "encrypted"), filepath.Join(path, "lost+found", "#12")
		if err := os.Rename(dir, found); err != nil {
			t.Fatal(err)
		}

		// While it is staged, and when it is staged again.
		for range 2 {
			if err := stage(n, v, secret); !errors.Is(err, volume.ErrDamaged) {
				t.Errorf("%s: %v", kind, err)
			}
			if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s: another one was made: %v", kind, err)
			}
			if err := n.Unstage(t.Context(), v.ID, path); err != nil {
				t.Fatal(err)
			}
		}
		n.Remove(v.ID)
	}
}

func TestEncryptedVolumeIsNotReadOnlyTheFirstTime(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		readOnly := publish.Use{Access: v.Access, Secret: secret, Options: []string{"ro"}}
		err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), readOnly)
		if !errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), v.ID) {
			t.Errorf("%s: %v", kind, err)
		}

		write(t, filepath.Join(use(n, v, "a"), "f"))
		n.Leave(v.ID, "a")
		if err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), readOnly); err != nil {
			t.Error(err)
		}
		checkReads(t, filepath.Join(n.StagePath(v.ID), "f"))
		n.Remove(v.ID)
	}
}
