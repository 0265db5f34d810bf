package nodetest_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/fscrypt"
	"github.com/trivet-node/trivet/csi/loop"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

const (
	secret      = "6Yx0TtVQkqf4uXqv5v0mRkqv3W8yq1m0aVb6p2cK9hE="
	otherSecret = "PdGq9o3k1a7bJ5r2s8u0w4y6A1C3E5G7I9K1M3O5Q7S="
	plaintext   = "nobody reads this without the Secret"
)

// kinds are the backends that have encrypted volumes.
var kinds = []string{"image", "btrfs"}

func newEncrypted(t *testing.T) *nodetest.Node {
	t.Helper()
	n := nodetest.New(t, 1<<30)
	testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	if err := fscrypt.Supported(); err != nil {
		testenv.Skip(t, "%v", err)
	}
	return n
}

func encrypted(name, backend string) volume.Request {
	return volume.Request{
		Name:       name,
		Required:   64 << 20,
		Backend:    backend,
		Access:     volume.Filesystem,
		Encryption: volume.Fscrypt,
	}
}

// written is an encrypted volume of pod "a", which has written the file "f".
func written(n *nodetest.Node, backend string) volume.Volume {
	n.T.Helper()
	v := n.MustCreate(encrypted("v-"+backend, backend))
	write(n.T, filepath.Join(use(n, v, "a"), "f"))
	return v
}

// stage stages a volume with a key.
func stage(n *nodetest.Node, v volume.Volume, key string) error {
	return n.Stage(n.T.Context(), v.ID, n.StagePath(v.ID), publish.Use{Access: v.Access, Secret: key})
}

// use stages and publishes a volume with its key.
func use(n *nodetest.Node, v volume.Volume, pod string) string {
	n.T.Helper()
	path := n.Target(v.ID, pod)
	err := errors.Join(
		stage(n, v, secret),
		n.Publish(n.T.Context(), v.ID, path, publish.Use{Access: v.Access}),
	)
	if err != nil {
		n.T.Fatal(err)
	}
	return path
}

// imageOf is the file that the volume is in.
func imageOf(n *nodetest.Node, v volume.Volume) string {
	if v.Backend == "image" {
		return filepath.Join(n.Dir, "images", v.ID+".img")
	}
	return filepath.Join(n.Dir, "pool/volumes", v.ID, "image")
}

func keyFileOf(n *nodetest.Node, v volume.Volume) string {
	return filepath.Join(n.Dir, "keys", v.Backend, v.ID)
}

// deviceOf opens the loop device that a volume is on; nil if there is none.
func deviceOf(n *nodetest.Node, v volume.Volume) *os.File {
	n.T.Helper()
	found, err := loop.Find(loop.TagOf(n.Instance, v.ID))
	if err != nil {
		n.T.Fatal(err)
	}
	return found[loop.TagOf(n.Instance, v.ID)]
}

// awaitNoDevice waits until the kernel has detached what an unstaged volume was on.
func awaitNoDevice(n *nodetest.Node, v volume.Volume) {
	n.T.Helper()
	n.Eventually("the device is gone", func() error {
		if dev := deviceOf(n, v); dev != nil {
			return errors.Join(errors.New(dev.Name()), dev.Close())
		}
		return nil
	})
}

func write(t testing.TB, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := io.WriteString(f, strings.Repeat(plaintext, 1000)); err != nil {
		t.Fatal(err)
	}
	if err := unix.Syncfs(int(f.Fd())); err != nil {
		t.Fatal(err)
	}
}

// checkUse is use for a volume that has what was written.
func checkUse(n *nodetest.Node, v volume.Volume, pod string) {
	n.T.Helper()
	checkReads(n.T, filepath.Join(use(n, v, pod), "f"))
}

func checkReads(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil || string(data) != strings.Repeat(plaintext, 1000) {
		t.Errorf("%s holds %d bytes, %v", path, len(data), err)
	}
}

func checkHasNot(t *testing.T, path string, what ...string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range what {
		if bytes.Contains(data, []byte(w)) {
			t.Errorf("%s has %q", path, w)
		}
	}
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var files []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return files
}

func TestDiskHasNothingOfAnEncryptedVolume(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		target := use(n, v, "a")
		write(t, filepath.Join(target, "name-of-the-file"))
		if entries, err := os.ReadDir(target); err != nil || len(entries) != 1 {
			t.Errorf("%s: a pod sees %v, %v", kind, entries, err)
		}

		n.Leave(v.ID, "a")
		awaitNoDevice(n, v)
		checkHasNot(t, imageOf(n, v), plaintext, "name-of-the-file", secret)

		// What the driver knows of the volume says nothing of the key either.
		for _, dir := range []string{"volumes", "run", "keys"} {
			for _, path := range filesBelow(t, filepath.Join(n.Dir, dir)) {
				checkHasNot(t, path, secret)
			}
		}

		checkReads(t, filepath.Join(use(n, v, "b"), "name-of-the-file"))
		n.Remove(v.ID, "b")
	}
}

func TestKeyOfAnEncryptedVolumeIsWanted(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)

		// Also while it is staged, without harm to who uses it.
		for _, staged := range []bool{true, false} {
			for name, given := range map[string]string{
				"none":      "",
				"another":   otherSecret,
				"too short": secret[:31],
				"too long":  strings.Repeat("x", 4097),
				"similar":   secret + "\n",
			} {
				err := stage(n, v, given)
				if !errors.Is(err, volume.ErrKey) || !strings.Contains(err.Error(), v.ID) {
					t.Errorf("%s, staged %t, with %s: %v", kind, staged, name, err)
				}
				if err != nil && given != "" && strings.Contains(err.Error(), given) {
					t.Errorf("the error tells the Secret: %v", err)
				}
			}
			if staged {
				checkReads(t, filepath.Join(n.Target(v.ID, "a"), "f"))
				n.Leave(v.ID, "a")
			}
			if !staged {
				awaitNoDevice(n, v)
			}
		}

		checkUse(n, v, "a")
		n.Remove(v.ID, "a")
	}
}

// The file of a volume is taken away before it is deleted: with it and the Secret, all but the key file.
func TestDeletedVolumeCannotBeReadWithItsSecret(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)
		n.Leave(v.ID, "a")
		awaitNoDevice(n, v)

		blocks, err := os.ReadFile(imageOf(n, v))
		if err != nil {
			t.Fatal(err)
		}
		half, err := os.Open(keyFileOf(n, v))
		if err != nil {
			t.Fatal(err)
		}
		defer half.Close()
		n.Remove(v.ID)

		// Nothing is left in the blocks that the key file had.
		left, err := io.ReadAll(half)
		if err != nil || len(left) != 4096 || !bytes.Equal(left, make([]byte, 4096)) {
			t.Errorf("%s: the key file has %d bytes, %v", kind, len(left), err)
		}
		if _, err := os.Lstat(keyFileOf(n, v)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the key file is left: %v", kind, err)
		}

		again := n.MustCreate(encrypted("v-"+kind, kind))
		if err := os.WriteFile(imageOf(n, again), blocks, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := stage(n, again, secret); !errors.Is(err, volume.ErrKey) {
			t.Errorf("%s: the deleted volume is there again: %v", kind, err)
		}
		n.Remove(again.ID)
	}
}

func TestEncryptedVolumeIsReadAfterAKillAndAReboot(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		target := use(n, v, "a")
		write(t, filepath.Join(target, "f"))

		n.Kill()
		n.Start()
		checkReads(t, filepath.Join(target, "f"))
		checkUse(n, v, "a")

		n.Reboot()
		checkUse(n, v, "a")
		n.Remove(v.ID, "a")
	}
}

// A process that is killed while it stages leaves the file system on the staging path, in which the volume
// is.
func TestStagingOfAnEncryptedVolumeThatWasCutShort(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)
		if err := n.Unpublish(t.Context(), v.ID, n.Target(v.ID, "a")); err != nil {
			t.Fatal(err)
		}

		n.Kill()
		showFileSystem(t, n, v)
		n.Start()

		u := publish.Use{Access: v.Access, Secret: secret}
		if err := n.Publish(t.Context(), v.ID, n.Target(v.ID, "a"), u); !errors.Is(err, volume.ErrNotStaged) {
			t.Errorf("%s: a pod sees the file system: %v", kind, err)
		}
		checkUse(n, v, "a")
		n.Remove(v.ID, "a")
	}
}

// showFileSystem has the whole file system of a staged volume on its staging path.
func showFileSystem(t *testing.T, n *nodetest.Node, v volume.Volume) {
	t.Helper()
	path := n.StagePath(v.ID)

	// Open, or the kernel detaches it in between.
	dev := deviceOf(n, v)
	if dev == nil {
		t.Fatal("there is no device")
	}
	defer dev.Close()
	err := errors.Join(unix.Unmount(path, 0), unix.Mount(dev.Name(), path, "ext4", 0, ""))
	if err != nil {
		t.Fatal(err)
	}
}

func TestKeyGoesWhenAnEncryptedVolumeIsUnstaged(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := written(n, kind)

		if err := n.Unstage(t.Context(), v.ID, n.StagePath(v.ID)); !errors.Is(err, volume.ErrInUse) {
			t.Errorf("%s: a pod has it: %v", kind, err)
		}
		checkReads(t, filepath.Join(n.Target(v.ID, "a"), "f"))

		other := elsewhere(n, v)
		n.Leave(v.ID, "a")
		if keyIn(t, other) {
			t.Errorf("%s: the key is there", kind)
		}
		if _, err := os.ReadFile(filepath.Join(other, "f")); err == nil {
			t.Errorf("%s: it is read after it was unstaged", kind)
		}
		id := keyOf(t, other)
		if err := unix.Unmount(other, 0); err != nil {
			t.Fatal(err)
		}
		awaitNoDevice(n, v)

		// Before Linux 6.2 the name of the key is there for as long as the file system is, without the key.
		n.Eventually("the name of the key is gone", func() error {
			keys, err := os.ReadFile("/proc/keys")
			if err == nil && bytes.Contains(keys, []byte(hex.EncodeToString(id[:]))) {
				err = fmt.Errorf("keys are %s", keys)
			}
			return err
		})
		n.Remove(v.ID)
	}
}
