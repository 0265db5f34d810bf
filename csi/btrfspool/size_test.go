package btrfspool

import (
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// room is that of a pool with so much data, of whose device a part is not allocated.
func room(device, data, unallocated int64) btrfs.Room {
	const metadata = 256 * mib
	return btrfs.Room{
		Device:      device,
		Unallocated: unallocated,
		Data:        btrfs.Chunks{Size: device - unallocated - metadata, Busy: data},
		Metadata:    btrfs.Chunks{Size: metadata, Busy: metadata / 4},
	}
}

var changes = []struct {
	name string
	m    measure
	want int64
}{
	{
		name: "enough",
		m:    measure{room: room(4*gib, 2*gib, gib), disk: 100 * gib},
	},
	{
		name: "content comes close",
		m:    measure{room: room(4*gib, 3*gib, 512*mib), disk: 100 * gib},
		want: 256 * mib,
	},
	{
		name: "content comes very close",
		m:    measure{room: room(4*gib, 3840*mib, 0), disk: 100 * gib},
		want: gib,
	},
	{
		name: "much content has more headroom",
		m:    measure{room: room(104*gib, 100*gib, 2*gib), disk: 100 * gib},
		want: 4352 * mib,
	},
	{
		name: "a fast writer",
		m:    measure{room: room(4*gib, 2*gib, gib), burst: gib, disk: 100 * gib},
		want: 2304 * mib,
	},
	{
		name: "reserved",
		m:    measure{room: room(4*gib, 2*gib, gib), reserved: 10 * gib, disk: 100 * gib},
		want: 9472 * mib,
	},
	{
		name: "no chunk for metadata could be cut",
		m: measure{
			room: btrfs.Room{
				Device:   8 * gib,
				Data:     btrfs.Chunks{Size: 7 * gib, Busy: 5 * gib},
				Metadata: btrfs.Chunks{Size: gib, Busy: gib},
			},
			disk: 100 * gib,
		},
		want: 256 * mib,
	},
	{
		name: "the disk has little left",
		m:    measure{room: room(4*gib, 3840*mib, 0), disk: 100 * mib},
		want: 96 * mib,
	},
	{
		name: "the disk is full",
		m:    measure{room: room(4*gib, 3840*mib, 0)},
	},
	{
		name: "as large as it may be",
		m:    measure{room: room(4*gib, 3840*mib, 0), most: 4 * gib, disk: 100 * gib},
	},
	{
		name: "a little to give back",
		m:    measure{room: room(4*gib, gib, gib), disk: 100 * gib},
	},
	{
		name: "much to give back",
		m:    measure{room: room(16*gib, gib, 12*gib), disk: 100 * gib},
		want: -256 * mib,
	},
	{
		name: "a little to give back to a full disk",
		m:    measure{room: room(4*gib, gib, gib)},
		want: -256 * mib,
	},
	{
		name: "the smallest pool",
		m:    measure{room: room(minSize, 0, 128*mib), disk: 100 * gib, most: minSize},
	},
	{
		name: "with holes it gets smaller first",
		m:    measure{room: room(90*gib, gib, 80*gib), holes: 80 * gib, disk: 10 * gib},
		want: -256 * mib,
	},
	{
		name: "with holes it does not grow",
		m:    measure{room: room(4*gib, 3840*mib, 0), holes: mib, disk: 10 * gib},
	},
}

func TestChangeOfSize(t *testing.T) {
	for _, c := range changes {
		t.Run(c.name, func(t *testing.T) {
			if got := c.m.change(); got != c.want {
				t.Errorf("changes by %d MiB, want %d (headroom %d MiB, lacks %d MiB)",
					got/mib, c.want/mib, c.m.headroom()/mib, c.m.lacks()/mib)
			}
		})
	}
}

// A pool that was just made larger is not made smaller by the next look, and the other way round.
func TestSizeSettles(t *testing.T) {
	for data := int64(0); data < 200*gib; data += 3*gib + 77*mib {
		m := measure{room: room(data+minSize, data, 128*mib), disk: 300 * gib}
		var last int64
		for range 10_000 {
			change := m.change()
			if change == 0 {
				break
			}
			if change < 0 != (last < 0) && last != 0 {
				t.Fatalf("with %d MiB: %d MiB after %d MiB", data/mib, change/mib, last/mib)
			}

			last = change
			m.room.Device += change
			m.room.Unallocated += change
			m.disk -= change
		}

		if m.change() != 0 || m.room.Free() < m.headroom() {
			t.Errorf("with %d MiB: %d MiB are free", data/mib, m.room.Free()/mib)
		}
	}
}
