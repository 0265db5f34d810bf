package btrfspool_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/target"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestVolumeIsEmptyUntilSomebodyWrites(t *testing.T) {
	d := dir(t)
	p := open(t, d, "empty-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)

	spec := plainSpec("vol-1", 32<<20)
	if _, err := p.Empty(spec.ID); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("before it is made: %v", err)
	}
	mustCreate(t, p, spec)
	if empty, err := p.Empty(spec.ID); !empty || err != nil {
		t.Errorf("a new volume: %t, %v", empty, err)
	}

	file := filepath.Join(d, "pool", "volumes", spec.ID, "f")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if empty, err := p.Empty(spec.ID); empty || err != nil {
		t.Errorf("with a file: %t, %v", empty, err)
	}
}

// Only a volume of this pool that was made after what was on disk may be made again.
func TestMissingVolumeIsMadeAgainOnlyIfItCannotHaveBeenOnDisk(t *testing.T) {
	d := dir(t)
	p := open(t, d, "again-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)

	spec := plainSpec("vol-1", 32<<20)

	made := mustCreate(t, p, spec)
	if got, err := p.Recover(spec, volume.Origin{Token: made.Token}); got != made || err != nil {
		t.Errorf("a record of earlier versions learns %+v, %v; want %+v", got, err, made)
	}

	for name, origin := range map[string]volume.Origin{
		"of another pool":                 {Token: made.Token, Pool: "other"},
		"of an earlier version":           {Token: made.Token},
		"made before the pool was opened": {Token: 1, Pool: made.Pool},
	} {
		if err := p.Destroy(spec.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Recover(spec, origin); !errors.Is(err, volume.ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}

	imported := spec
	imported.Imported = "sha256:0"
	if _, err := p.Recover(imported, made); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("with content that was imported: %v", err)
	}
	if got, err := p.Recover(spec, made); got.Pool != made.Pool || err != nil {
		t.Errorf("made since then: %+v, %v", got, err)
	}
}

// Its key file is on the disk, and is the only one that it may have: were it made again, too, a process that
// is killed meanwhile would leave the volume without one.
func TestEncryptedVolumeThatIsMadeAgainKeepsItsKeyFile(t *testing.T) {
	d := dir(t)
	testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	p := open(t, d, "key-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)

	spec := imageSpec("vol-1", 32<<20)
	spec.Encryption = volume.Fscrypt
	made := mustCreate(t, p, spec)
	keyFile := filepath.Join(d, "keys", btrfspool.Name, spec.ID)
	before, err := os.Stat(keyFile)
	if err != nil {
		t.Fatal(err)
	}

	root, err := os.Open(filepath.Join(d, "pool", "volumes"))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := btrfs.Destroy(root, spec.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Recover(spec, made); err != nil {
		t.Fatal(err)
	}
	if after, err := os.Stat(keyFile); err != nil || !os.SameFile(before, after) ||
		!after.ModTime().Equal(before.ModTime()) {
		t.Errorf("it was written again: %v", err)
	}

	// A volume of that name that is created is another one.
	mustCreate(t, p, spec)
	after, err := os.Stat(keyFile)
	if err != nil || after.ModTime().Equal(before.ModTime()) {
		t.Errorf("it is the key file of an earlier volume: %v", err)
	}
	if err := p.Destroy(spec.ID); err != nil {
		t.Error(err)
	}
}

// What is made in place of an image that is in use would be written to through the device of the old one.
func TestImageInUseIsNotReplaced(t *testing.T) {
	d := dir(t)
	testenv.Program(t, "mkfs.ext4", "e2fsprogs")
	p := open(t, d, "replaced-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)

	spec := imageSpec("vol-1", 32<<20)
	mustCreate(t, p, spec)
	tree, err := p.Mount(spec, target.Options{})
	if err != nil {
		t.Fatal(err)
	}

	if _, err := p.Create(spec); !errors.Is(err, volume.ErrInUse) {
		t.Errorf("while it is mounted: %v", err)
	}
	if err := tree.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Create(spec); err != nil {
		t.Errorf("when it is not any more: %v", err)
	}
	if err := p.Destroy(spec.ID); err != nil {
		t.Error(err)
	}
}
