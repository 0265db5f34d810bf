package btrfs

import (
	"encoding/binary"
	"testing"
)

// extentOf is an item as the kernel has it on the disk.
func extentOf(kind byte, unpacked, disk, within, size uint64) []byte {
	item := make([]byte, 53)
	item[20] = kind
	binary.LittleEndian.PutUint64(item[8:], unpacked)
	binary.LittleEndian.PutUint64(item[21:], disk)
	binary.LittleEndian.PutUint64(item[37:], within)
	binary.LittleEndian.PutUint64(item[45:], size)
	return item
}

func TestOnlyWhatWasWrittenIsAnExtent(t *testing.T) {
	for _, c := range []struct {
		name    string
		item    []byte
		want    Extent
		written bool
		fails   bool
	}{
		{name: "written", item: extentOf(1, 8, 100, 4, 8), want: Extent{7, 8, 100, 4}, written: true},
		{name: "preallocated", item: extentOf(2, 8, 100, 4, 8), want: Extent{7, 8, 100, 4}},
		{name: "a hole", item: extentOf(1, 8, 0, 0, 8), want: Extent{7, 8, 0, 0}},
		{name: "in the item", item: extentOf(0, 5, 0, 0, 0)[:26], want: Extent{7, 5, 0, 0}, written: true},
		{name: "of another kind", item: extentOf(3, 8, 100, 0, 8), fails: true},
		{name: "of nothing", item: extentOf(1, 8, 100, 0, 0), fails: true},
		{name: "beyond all files", item: extentOf(1, 8, 100, 0, 1<<63-1), fails: true},
		{name: "cut off", item: extentOf(1, 8, 100, 0, 8)[:40], fails: true},
		{name: "empty", fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, written, err := parseExtent(7, c.item)
			if (err != nil) != c.fails {
				t.Fatal(err)
			}

			if err == nil && (got != c.want || written != c.written) {
				t.Errorf("got %+v, written %v", got, written)
			}
		})
	}
}
