package btrfspool_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// On a full disk others take what the pool has but for what is reserved. An image has no answer to a write
// that lacks room but EIO, and the file system in it gives up.
func TestOthersDoNotTakeWhatIsReserved(t *testing.T) {
	const size = 128 << 20
	for _, c := range []struct {
		request   volume.Request
		snapshots bool
	}{
		{volume.Request{Name: "subvolume", Access: volume.Filesystem, Reserve: new(true)}, false},
		{volume.Request{Name: "block", Access: volume.Block}, false},
		{volume.Request{Name: "block-with-a-snapshot", Access: volume.Block}, true},
	} {
		t.Run(c.request.Name, func(t *testing.T) {
			n := nodetest.NewOnDisk(t, 2<<30, 0)
			c.request.Required, c.request.Backend = size, "btrfs"
			reserved := n.MustCreate(c.request)
			other := n.MustCreate(volume.Request{Name: "other", Required: 1 << 30, Backend: "btrfs"})
			at, beside := n.Use(reserved, "pod"), n.Use(other, "pod")
			if reserved.Access == volume.Filesystem {
				at = filepath.Join(at, "data")
			}
			if c.snapshots {
				overwrite(t, at, size)
				n.MustCreate(volume.Request{Name: "s", Source: reserved.ID, Snapshot: true})
			}

			n.FillDisk()
			if written := n.Fill(beside, 1<<30); written == 1<<30 {
				t.Error("there is room for all: this shows nothing")
			}
			overwrite(t, at, size)
			overwrite(t, at, size)
			n.Remove(reserved.ID, "pod")
			n.Remove(other.ID, "pod")
		})
	}
}

// Chunks of data may take all there is: without room of its own for metadata nobody could make a file then.
func TestNewPoolHasRoomForMetadata(t *testing.T) {
	d := dir(t)
	p := open(t, d, "metadata-"+filepath.Base(d), 1<<30)
	defer closePool(t, p, true)

	mounted, err := os.Open(filepath.Join(d, "pool"))
	if err != nil {
		t.Fatal(err)
	}
	defer mounted.Close()
	info, err := btrfs.Stat(mounted)
	if err != nil {
		t.Fatal(err)
	}

	m, err := btrfs.NewMeter(mounted, info)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if room, err := m.Room(); err != nil || room.Metadata.Size < 32<<20 {
		t.Errorf("%+v, %v", room, err)
	}
}
