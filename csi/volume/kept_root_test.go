package volume_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
)

// tear makes the record of a volume unreadable while the driver is away.
func (n *node) tear(id string) {
	n.t.Helper()
	n.kill()
	if err := os.Truncate(filepath.Join(n.dir, "volumes", id+".json"), 9); err != nil {
		n.t.Fatal(err)
	}
	n.start()
}

// lose removes the record of a volume while the driver is away.
func (n *node) lose(id string) {
	n.t.Helper()
	n.kill()
	if err := os.Remove(filepath.Join(n.dir, "volumes", id+".json")); err != nil {
		n.t.Fatal(err)
	}
	n.start()
}

// leave takes a volume from its pod; it stays.
func (n *node) leave(id, pod string) {
	n.t.Helper()
	err := errors.Join(
		n.Unpublish(n.t.Context(), id, n.target(id, pod)),
		n.Unstage(n.t.Context(), id, n.stagePath(id)),
	)
	if err != nil {
		n.t.Fatal(err)
	}
}

func TestCreateNeverDestroysDataWithoutARecord(t *testing.T) {
	for how, spoil := range map[string]func(*node, string){"torn": (*node).tear, "lost": (*node).lose} {
		for _, backend := range []string{"btrfs", "image"} {
			t.Run(how+" "+backend, func(t *testing.T) {
				n := newNode(t, 1<<30)
				request := volume.Request{
					Name:     "data",
					Required: 16 << 20,
					Backend:  backend,
					Access:   volume.Filesystem,
				}

				v := n.create(request)
				write(t, v, n.publish(v, "pod"))
				n.leave(v.ID, "pod")
				record := filepath.Join(n.dir, "volumes", v.ID+".json")
				whole, err := os.ReadFile(record)
				if err != nil {
					t.Fatal(err)
				}

				spoil(n, v.ID)
				_, err = n.Create(t.Context(), request)
				if !errors.Is(err, volume.ErrDamaged) ||
					!strings.Contains(err.Error(), "delete volume "+v.ID) {
					t.Fatalf("a volume of the same name: %v, want a refusal that names the way out", err)
				}

				n.kill()
				if err := os.WriteFile(record, whole, 0o600); err != nil {
					t.Fatal(err)
				}

				n.start()
				read(t, v, n.publish(v, "pod"))
				n.remove(v.ID, "pod")
			})
		}
	}
}

func TestDeleteByIDEndsWhatNoRecordTellsOf(t *testing.T) {
	n := newNode(t, 1<<30)
	for _, backend := range []string{"btrfs", "image"} {
		request := volume.Request{
			Name:     "data " + backend,
			Required: 16 << 20,
			Backend:  backend,
			Access:   volume.Filesystem,
		}

		v := n.create(request)
		write(t, v, n.publish(v, "pod"))
		n.leave(v.ID, "pod")
		n.tear(v.ID)
		if err := n.Delete(t.Context(), v.ID); err != nil {
			t.Fatal(err)
		}

		n.remove(n.create(request).ID)
	}

	n.kill()
	if report := n.start(); len(report.Strays) > 0 {
		t.Errorf("left: %v", report.Strays)
	}
}

// A power loss may leave an image that was made and whose record never reached the disk. Nobody was told of
// it.
func TestImageThatNobodyEverUsedGivesWay(t *testing.T) {
	n := newNode(t, 1<<30)
	request := volume.Request{
		Name:     "new",
		Required: 16 << 20,
		Backend:  "image",
		FSType:   "ext4",
	}

	v := n.create(request)
	n.kill()
	if err := os.Remove(filepath.Join(n.dir, "volumes", v.ID+".json")); err != nil {
		t.Fatal(err)
	}
	if report := n.start(); len(report.Strays) > 0 {
		t.Errorf("left alone: %v", report.Strays)
	}

	n.remove(n.create(request).ID)
}

func TestRecordOfAnUnknownPhaseIsNoReasonToDestroy(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "data", Required: 16 << 20})
	write(t, v, n.publish(v, "pod"))
	n.leave(v.ID, "pod")
	n.kill()
	record := filepath.Join(n.dir, "volumes", v.ID+".json")
	whole, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}

	future := strings.Replace(string(whole), `"phase":"ready"`, `"phase":"moving"`, 1)
	if err := os.WriteFile(record, []byte(future), 0o600); err != nil {
		t.Fatal(err)
	}
	if report := n.start(); !errors.Is(report.Damaged[v.ID], volume.ErrDamaged) {
		t.Errorf("report %+v", report)
	}

	request := volume.Request{Name: "data", Required: 16 << 20, Access: volume.Filesystem}
	if _, err := n.Create(t.Context(), request); !errors.Is(err, volume.ErrDamaged) {
		t.Errorf("made anew: %v", err)
	}

	n.kill()
	if err := os.WriteFile(record, whole, 0o600); err != nil {
		t.Fatal(err)
	}

	n.start()
	read(t, v, n.publish(v, "pod"))
	n.remove(v.ID, "pod")
}

func TestConflictNamesTheVolume(t *testing.T) {
	n := newNode(t, 1<<30)
	v := n.create(volume.Request{Name: "v", Required: 16 << 20, Backend: "btrfs"})
	_, err := n.Create(
		t.Context(),
		volume.Request{
			Name:     "v",
			Required: 16 << 20,
			Backend:  "image",
			Access:   volume.Filesystem,
		},
	)
	if !errors.Is(err, volume.ErrConflict) ||
		!strings.Contains(err.Error(), "volume "+v.ID+" has backend btrfs, requested was image") {
		t.Errorf("error %v", err)
	}

	n.remove(v.ID)
}
