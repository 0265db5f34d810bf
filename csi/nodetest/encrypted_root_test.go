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

// use stages and publishes a volume with a key.
func use(n *nodetest.Node, v volume.Volume, pod string) string {
	n.T.Helper()
	u := publish.Use{Access: v.Access, Secret: secret}
	path := n.Target(v.ID, pod)
	err := errors.Join(
		n.Stage(n.T.Context(), v.ID, n.StagePath(v.ID), u),
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

// awaitNoDevice waits until the kernel has detached what an unstaged volume was on.
func awaitNoDevice(n *nodetest.Node, v volume.Volume) {
	n.T.Helper()
	n.Eventually("the device is gone", func() error {
		if name, err := n.DeviceOf(v.ID); err == nil {
			return errors.New(name)
		}
		return nil
	})
}

func write(t *testing.T, path string) {
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

func checkReads(t *testing.T, path string) {
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
			err := filepath.WalkDir(filepath.Join(n.Dir, dir), func(path string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					checkHasNot(t, path, secret)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}

		checkReads(t, filepath.Join(use(n, v, "b"), "name-of-the-file"))
		n.Remove(v.ID, "b")
	}
}

func TestKeyOfAnEncryptedVolumeIsWanted(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		write(t, filepath.Join(use(n, v, "a"), "f"))

		// Also while it is staged, without harm to who uses it.
		for _, staged := range []bool{true, false} {
			for name, given := range map[string]string{
				"none":      "",
				"another":   otherSecret,
				"too short": secret[:31],
				"too long":  strings.Repeat("x", 4097),
				"similar":   secret + "\n",
			} {
				u := publish.Use{Access: v.Access, Secret: given}
				err := n.Stage(t.Context(), v.ID, n.StagePath(v.ID), u)
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

		checkReads(t, filepath.Join(use(n, v, "a"), "f"))
		n.Remove(v.ID, "a")
	}
}

// The file of a volume is taken away before it is deleted: with it and the Secret, all but the key file.
func TestDeletedVolumeCannotBeReadWithItsSecret(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		write(t, filepath.Join(use(n, v, "a"), "f"))
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
		u := publish.Use{Access: again.Access, Secret: secret}
		if err := n.Stage(t.Context(), again.ID, n.StagePath(again.ID), u); !errors.Is(err, volume.ErrKey) {
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
		checkReads(t, filepath.Join(use(n, v, "a"), "f"))

		n.Reboot()
		checkReads(t, filepath.Join(use(n, v, "a"), "f"))
		n.Remove(v.ID, "a")
	}
}

// A process that is killed while it stages leaves the file system on the staging path, in which the volume
// is.
func TestStagingOfAnEncryptedVolumeThatWasCutShort(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		write(t, filepath.Join(use(n, v, "a"), "f"))
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
		checkReads(t, filepath.Join(use(n, v, "a"), "f"))
		n.Remove(v.ID, "a")
	}
}

// showFileSystem has the whole file system of a staged volume on its staging path.
func showFileSystem(t *testing.T, n *nodetest.Node, v volume.Volume) {
	t.Helper()
	path := n.StagePath(v.ID)
	name, err := n.DeviceOf(v.ID)
	if err != nil {
		t.Fatal(err)
	}

	// The kernel would detach it in between.
	dev, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer dev.Close()
	if err := errors.Join(unix.Unmount(path, 0), unix.Mount(name, path, "ext4", 0, "")); err != nil {
		t.Fatal(err)
	}
}

func TestKeyGoesWhenAnEncryptedVolumeIsUnstaged(t *testing.T) {
	n := newEncrypted(t)
	v := n.MustCreate(encrypted("v", "image"))
	write(t, filepath.Join(use(n, v, "a"), "f"))

	if err := n.Unstage(t.Context(), v.ID, n.StagePath(v.ID)); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("a pod has it: %v", err)
	}
	checkReads(t, filepath.Join(n.Target(v.ID, "a"), "f"))

	// Somebody else has the file system mounted, as a program that was started meanwhile has.
	other := filepath.Join(n.Dir, "other")
	if err := errors.Join(os.Mkdir(other, 0o700), unix.Mount(n.StagePath(v.ID), other, "", unix.MS_BIND, "")); err != nil {
		t.Fatal(err)
	}
	n.Leave(v.ID, "a")
	dir, err := os.Open(other)
	if err != nil {
		t.Fatal(err)
	}
	id, is, err := fscrypt.KeyOf(dir)
	if err != nil || !is {
		t.Fatal(is, err)
	}
	if there, err := fscrypt.Present(dir, id); there || err != nil {
		t.Errorf("the key is there: %t, %v", there, err)
	}
	dir.Close()
	if _, err := os.ReadFile(filepath.Join(other, "f")); err == nil {
		t.Error("it is read after it was unstaged")
	}

	if err := unix.Unmount(other, 0); err != nil {
		t.Fatal(err)
	}
	awaitNoDevice(n, v)
	n.Remove(v.ID)
}

func TestCopiesOfAnEncryptedVolumeHaveItsKey(t *testing.T) {
	n := newEncrypted(t)
	v := n.MustCreate(encrypted("v", "btrfs"))
	write(t, filepath.Join(use(n, v, "a"), "f"))
	snapshot, err := n.Create(t.Context(), volume.Request{Name: "s", Source: v.ID, Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}

	clone := encrypted("clone", "")
	clone.Source = v.ID
	c := n.MustCreate(clone)
	n.Remove(v.ID, "a")
	n.Kill()
	n.Start()

	restored := encrypted("restored", "")
	restored.Source = snapshot.ID
	for _, copied := range []volume.Volume{c, n.MustCreate(restored)} {
		u := publish.Use{Access: copied.Access, Secret: otherSecret}
		if err := n.Stage(t.Context(), copied.ID, n.StagePath(copied.ID), u); !errors.Is(err, volume.ErrKey) {
			t.Errorf("%s with another key: %v", copied.Name, err)
		}
		checkReads(t, filepath.Join(use(n, copied, "a"), "f"))
		n.Remove(copied.ID, "a")
	}

	if err := n.Delete(t.Context(), snapshot.ID); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(n.Dir, "keys/btrfs")); len(left) > 0 || err != nil {
		t.Errorf("key files are left: %v, %v", left, err)
	}
}

func TestWhatCannotBeEncryptedIsRefused(t *testing.T) {
	n := newEncrypted(t)
	v := n.MustCreate(encrypted("v", "btrfs"))
	plain := n.MustCreate(volume.Request{Name: "plain", Required: 64 << 20, Backend: "btrfs", FSType: "ext4"})
	for name, change := range map[string]func(*volume.Request){
		"raw block":                     func(r *volume.Request) { r.Access = volume.Block },
		"xfs":                           func(r *volume.Request) { r.FSType = "xfs" },
		"btrfs":                         func(r *volume.Request) { r.FSType = "btrfs" },
		"an unknown way":                func(r *volume.Request) { r.Encryption = "rot13" },
		"a plain volume's content":      func(r *volume.Request) { r.Source, r.Backend = plain.ID, "" },
		"its content, not encrypted":    func(r *volume.Request) { r.Source, r.Backend, r.Encryption = v.ID, "", "" },
		"its content as a block volume": func(r *volume.Request) { r.Source, r.Access, r.Encryption = v.ID, volume.Block, "" },
	} {
		for _, kind := range kinds {
			r := encrypted("refused", kind)
			change(&r)
			if _, err := n.Create(t.Context(), r); !errors.Is(err, volume.ErrInvalid) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}

	// Whoever exports it has no key.
	err := n.Lend(t.Context(), v.ID, func(volume.Spec) error { return errors.New("lent") })
	if !errors.Is(err, volume.ErrInvalid) {
		t.Errorf("it is lent: %v", err)
	}
}

func TestEncryptedVolumeWithoutItsKeyFileIsDamaged(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		n.Kill()
		kept := keyFileOf(n, v) + ".kept"
		if err := os.Rename(keyFileOf(n, v), kept); err != nil {
			t.Fatal(err)
		}
		if report := n.Start(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
			t.Errorf("%s: %v", kind, report.Damaged)
		}

		n.Kill()
		if err := os.Rename(kept, keyFileOf(n, v)); err != nil {
			t.Fatal(err)
		}
		n.Start()
		use(n, v, "a")
		n.Remove(v.ID, "a")
	}
}

func TestEncryptedVolumeIsUsedLikeAnyOther(t *testing.T) {
	n := newEncrypted(t)
	for _, kind := range kinds {
		v := n.MustCreate(encrypted("v-"+kind, kind))
		write(t, filepath.Join(use(n, v, "a"), "f"))

		// A group, and read-only.
		group := publish.Use{Access: v.Access, Group: new(int64(4711))}
		readOnly := publish.Use{Access: v.Access, ReadOnly: true}
		err := errors.Join(
			n.Publish(t.Context(), v.ID, n.Target(v.ID, "group"), group),
			n.Publish(t.Context(), v.ID, n.Target(v.ID, "ro"), readOnly),
		)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Stat(filepath.Join(n.Target(v.ID, "ro"), "f"), &st); err != nil || st.Gid != 4711 {
			t.Errorf("%s: group %d, %v", kind, st.Gid, err)
		}
		if err := os.WriteFile(filepath.Join(n.Target(v.ID, "ro"), "g"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: written through the read-only mount: %v", kind, err)
		}
		n.Leave(v.ID, "a", "group", "ro")

		// It is as large as asked for, filled up to that, and grows.
		if _, err := n.Grow(t.Context(), v.ID, 128<<20, 0); err != nil {
			t.Fatal(err)
		}
		path := use(n, v, "a")
		_, usage, err := n.Stats(v.ID, path)
		if err != nil || usage.Total < 100<<20 || usage.Total > 128<<20 {
			t.Errorf("%s: df says %d bytes, %v", kind, usage.Total, err)
		}
		if wrote := n.Fill(path, 256<<20); wrote < 80<<20 || wrote > 128<<20 {
			t.Errorf("%s: %d bytes were written", kind, wrote)
		}
		checkReads(t, filepath.Join(path, "f"))
		n.Remove(v.ID, "a")
	}
}
