package btrfspool_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// reservedSpec is for a volume of the pool that is reserved for.
func reservedSpec(id string, size int64) volume.Spec {
	s := plainSpec(id, size)
	s.NoCOW, s.Reserve = true, true
	return s
}

// A volume that could not grow has no more reserved for it than before.
func TestFailedGrowthReservesNothing(t *testing.T) {
	d := dir(t)
	p := open(t, d, "grow-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)

	mustCreate(t, p, reservedSpec("vol-1", 100<<20))
	if err := p.Grow(reservedSpec("vol-1", 4<<30)); !errors.Is(err, volume.ErrFull) {
		t.Errorf("growth beyond the pool: %v", err)
	}
	if _, err := p.Create(reservedSpec("vol-2", 4<<30)); !errors.Is(err, volume.ErrFull) {
		t.Errorf("a volume beyond the pool: %v", err)
	}
	mustCreate(t, p, reservedSpec("vol-3", 500<<20))
}

// What is reserved for a volume because a copy has its blocks is free again when the copy is gone and the
// volume has written over them; also if making a copy has failed.
func TestDeletedCopyReservesNothing(t *testing.T) {
	d := dir(t)
	p := open(t, d, "copy-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)
	defer keeping(t, p)()

	source := reservedSpec("vol-1", 300<<20)
	mustCreate(t, p, source)
	data := filepath.Join(d, "pool", "volumes", "vol-1", "data")
	overwrite(t, data, 250<<20)

	snapshot := volume.Spec{
		ID:       "snap-1",
		Size:     source.Size,
		Source:   source.ID,
		Snapshot: true,
	}
	if _, _, err := p.Copy(snapshot, source); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Create(reservedSpec("vol-2", 560<<20)); !errors.Is(err, volume.ErrFull) {
		t.Errorf("beside the snapshot: %v", err)
	}
	if err := p.Destroy(snapshot.ID); err != nil {
		t.Fatal(err)
	}
	overwrite(t, data, 250<<20)
	eventually(t, "what the snapshot had is free", func() error {
		_, err := p.Create(reservedSpec("vol-2", 560<<20))
		return errors.Join(err, p.Commit())
	})

	// There is no room to write over what the snapshot would have.
	if _, _, err := p.Copy(snapshot, source); !errors.Is(err, volume.ErrFull) {
		t.Errorf("a snapshot that there is no room for: %v", err)
	}
	if err := errors.Join(p.Destroy(snapshot.ID), p.Destroy("vol-2"), os.Remove(data)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bytes are free", func() error {
		_, err := p.Create(reservedSpec("vol-2", 450<<20))
		return errors.Join(err, p.Commit())
	})
}
