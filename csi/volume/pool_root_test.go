package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// A pool whose file is missing, because its disk is not mounted, or because all but it was restored, is never
// replaced by an empty one.
func TestMissingPoolIsWaitedFor(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs"})
	write(t, v, n.publish(v, "pod"))
	n.leave(v.ID, "pod")
	file := filepath.Join(n.dir, "pool.img")
	if err := os.Rename(file, file+".away"); err != nil {
		t.Fatal(err)
	}
	if report := n.reboot(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
		t.Errorf("report %+v", report)
	}

	stage := func() error {
		return n.Stage(t.Context(), v.ID, n.stagePath(v.ID), volume.Use{Access: volume.Filesystem})
	}
	if err := stage(); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("staging: %v", err)
	}
	if other := n.create(volume.Request{Name: "other", Required: 16 << 20}); other.Backend != "image" {
		t.Errorf("a new volume is in backend %s", other.Backend)
	}

	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}

	eventually(t, "the volume is back", stage)
	read(t, v, n.publish(v, "pod"))
	n.remove(v.ID, "pod")
	n.remove(volume.ID("other"))
}

// Whoever gives the old pool up gets a new one, and its volumes are damaged, not empty.
func TestVolumesOfAnotherPoolAreDamaged(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs"})
	file := filepath.Join(n.dir, "pool.img")
	id := filepath.Join(n.dir, "pool.id")
	if err := errors.Join(os.Rename(file, file+".away"), os.Remove(id)); err != nil {
		t.Fatal(err)
	}
	if report := n.reboot(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
		t.Errorf("report %+v", report)
	}

	_, err := n.Create(
		t.Context(),
		volume.Request{
			Name:     "v",
			Required: 16 << 20,
			Backend:  "btrfs",
			Access:   volume.Filesystem,
		},
	)
	if !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("made anew: %v", err)
	}

	fresh := n.create(volume.Request{Name: "fresh", Required: 16 << 20, Backend: "btrfs"})

	if err := os.Rename(file+".away", file); err != nil {
		t.Fatal(err)
	}

	report := n.reboot()
	if report.Damaged[v.ID] != nil || !errors.Is(report.Damaged[fresh.ID], volume.ErrDamaged) {
		t.Errorf("with the old pool back: %+v", report)
	}

	for _, id := range []string{v.ID, fresh.ID} {
		if err := n.Delete(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}

// Records of earlier versions do not say which pool they are about.
func TestOldRecordLearnsItsPool(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{
		Name:     "v",
		Required: 16 << 20,
		Backend:  "btrfs",
		NoCOW:    new(false),
	})

	n.kill()
	record := filepath.Join(n.dir, "volumes", v.ID+".json")
	whole, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}

	pool, err := os.ReadFile(filepath.Join(n.dir, "pool.id"))
	if err != nil {
		t.Fatal(err)
	}

	old := without(string(whole), `,"pool":"`+string(pool[:len(pool)-1])+`"`)
	if err := os.WriteFile(record, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	if report := n.start(); report.Recovered != 1 {
		t.Errorf("report %+v", report)
	}
	if now, err := os.ReadFile(record); err != nil || string(now) != string(whole) {
		t.Errorf("record %s, %v; want %s", now, err, whole)
	}

	n.kill()
	file := filepath.Join(n.dir, "pool.img")
	if err := errors.Join(os.WriteFile(record, []byte(old), 0o600), os.Rename(file, file+".away"),
		os.Remove(filepath.Join(n.dir, "pool.id"))); err != nil {
		t.Fatal(err)
	}

	if report := n.reboot(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
		t.Errorf("in a new pool: %+v", report)
	}

	n.remove(v.ID)
}

func without(s, part string) string {
	for i := range s {
		if len(s)-i >= len(part) && s[i:i+len(part)] == part {
			return s[:i] + s[i+len(part):]
		}
	}
	return s
}
