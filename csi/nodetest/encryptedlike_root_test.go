package nodetest_test

import (
	"bytes"
	"cmp"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/publish"
	"github.com/trivet-node/trivet/csi/volume"
)

func TestCopiesOfAnEncryptedVolumeHaveItsKey(t *testing.T) {
	n := newEncrypted(t)
	v := written(n, "btrfs")
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
		if err := stage(n, copied, otherSecret); !errors.Is(err, volume.ErrKey) {
			t.Errorf("%s with another key: %v", copied.Name, err)
		}
		checkUse(n, copied, "a")
		n.Remove(copied.ID, "a")
	}

	if err := n.Delete(t.Context(), snapshot.ID); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(filepath.Join(n.Dir, "keys/btrfs")); len(left) > 0 || err != nil {
		t.Errorf("key files are left: %v, %v", left, err)
	}
}

func TestGroupOfEncryptedVolumesHasTheirKeys(t *testing.T) {
	n := newEncrypted(t)
	var requests []volume.Request
	for _, name := range []string{"a", "b"} {
		v := n.MustCreate(encrypted(name, "btrfs"))
		write(t, filepath.Join(use(n, v, "pod"), "f"))
		requests = append(requests, volume.Request{Name: "of-" + name, Source: v.ID, Snapshot: true})
	}
	snapshots, err := n.Together(t.Context(), requests)
	if err != nil {
		t.Fatal(err)
	}

	for _, r := range requests {
		n.Remove(r.Source, "pod")
	}
	for _, s := range snapshots {
		r := encrypted("from-"+s.ID, "")
		r.Source = s.ID
		v := n.MustCreate(r)
		checkUse(n, v, "pod")
		n.Remove(v.ID, "pod")
		if err := n.Delete(t.Context(), s.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestWhatCannotBeEncryptedIsRefused(t *testing.T) {
	n := newEncrypted(t)
	v := n.MustCreate(encrypted("v", "btrfs"))
	r := encrypted("plain", "btrfs")
	r.Encryption, r.FSType = "", "ext4"
	plain := n.MustCreate(r)
	for name, change := range map[string]func(*volume.Request){
		"raw block":                func(r *volume.Request) { r.Access = volume.Block },
		"xfs":                      func(r *volume.Request) { r.FSType = "xfs" },
		"btrfs":                    func(r *volume.Request) { r.FSType = "btrfs" },
		"an unknown way":           func(r *volume.Request) { r.Encryption = "rot13" },
		"a plain volume's content": func(r *volume.Request) { r.Source, r.Backend = plain.ID, "" },
		"its content, not encrypted": func(r *volume.Request) {
			r.Source, r.Backend, r.Encryption = v.ID, "", ""
		},
		"its content as a block volume": func(r *volume.Request) {
			r.Source, r.Backend, r.Encryption, r.Access = v.ID, "", "", volume.Block
		},
	} {
		for _, kind := range kinds {
			r := encrypted("refused", kind)
			change(&r)
			if _, err := n.Create(t.Context(), r); !errors.Is(err, volume.ErrInvalid) {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}

	// An export has no key.
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
		v := written(n, kind)

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
		err = os.WriteFile(filepath.Join(n.Target(v.ID, "ro"), "g"), nil, 0o600)
		if !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: written through the read-only mount: %v", kind, err)
		}
		n.Leave(v.ID, "a", "group", "ro")

		// It is as large as asked for, filled up to that, and grows.
		if _, err := n.Grow(t.Context(), v.ID, 128<<20, 0); err != nil {
			t.Fatal(err)
		}
		path := use(n, v, "a")
		if _, err := n.GrowStaged(t.Context(), v.ID); err != nil {
			t.Errorf("%s: grow in use: %v", kind, err)
		}
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

func TestEncryptedVolumeIsDeletedOnAFullDisk(t *testing.T) {
	newEncrypted(t)
	n := nodetest.NewOnDisk(t, 768<<20, 512<<20)
	for _, kind := range kinds {
		r := encrypted("v-"+kind, kind)
		r.Required = 16 << 20
		v := n.MustCreate(r)
		write(t, filepath.Join(use(n, v, "a"), "f"))
		n.Leave(v.ID, "a")
		makeRoom := n.FillDisk()
		if err := n.Delete(t.Context(), v.ID); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		if _, err := os.Lstat(keyFileOf(n, v)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the key file is left: %v", kind, err)
		}
		makeRoom()
	}
}

// BenchmarkWrite writes 64 MiB to a file of a volume with ext4, and syncs it.
func BenchmarkWrite(b *testing.B) {
	for _, encryption := range []volume.Encryption{"", volume.Fscrypt} {
		n := nodetest.New(b, 1<<30)
		r := encrypted("v", "image")
		r.Required, r.FSType, r.Encryption = 256<<20, "ext4", encryption
		path := filepath.Join(use(n, n.MustCreate(r), "a"), "f")
		b.Run(cmp.Or(string(encryption), "plain"), func(b *testing.B) {
			data := bytes.Repeat([]byte("0123456789abcdef"), 4<<20)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				f, err := os.Create(path)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Write(data); err != nil {
					b.Fatal(err)
				}
				if err := errors.Join(f.Sync(), f.Close()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
