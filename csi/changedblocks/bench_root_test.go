package changedblocks_test

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
)

// BenchmarkChangedBlocks is about an image of 1 GiB that is full, and 10,000 blocks of 4 KiB that were
// written between two snapshots, at random places.
func BenchmarkChangedBlocks(b *testing.B) {
	n := newNode(b)
	const size = 1 << 30
	v, path := n.raw(size)
	write(b, path, 1<<20, n.random.Perm(size>>20))
	base := n.snapshot(v)
	write(b, path, block, n.random.Perm(size / block)[:10_000])
	target := n.snapshot(v)

	ignore := func(int64, ranges) error { return nil }
	b.Run("allocated", func(b *testing.B) {
		for b.Loop() {
			if err := n.tracker.Allocated(b.Context(), target.ID, 0, ignore); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("delta", func(b *testing.B) {
		for b.Loop() {
			if err := n.tracker.Changed(b.Context(), base.ID, target.ID, 0, ignore); err != nil {
				b.Fatal(err)
			}
		}
	})

	n.Remove(v.ID, "pod")
}

// write writes blocks of a size, by their numbers, in that order.
func write(t testing.TB, path string, size int64, numbers []int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	data := bytes.Repeat([]byte("data"), int(size/4))
	for _, number := range numbers {
		if _, err := f.WriteAt(data, int64(number)*size); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
}

// BenchmarkManyExtents is about an image of 1 TiB with a million extents of 4 KiB, all of which are new.
func BenchmarkManyExtents(b *testing.B) {
	n := newNode(b)
	const size, written = 1 << 40, 1 << 30
	v := n.MustCreate(volume.Request{
		Name:     "v",
		Required: written,
		Backend:  "btrfs",
		Access:   volume.Block,
	})
	base := n.snapshot(v)
	spread(b, filepath.Join(n.Dir, "pool", "volumes", v.ID, "image"), written, size)
	target := n.snapshot(v)

	most, count := uint64(0), 0
	for b.Loop() {
		count = 0
		err := n.tracker.Changed(b.Context(), base.ID, target.ID, 0, func(_ int64, some ranges) error {
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			most = max(most, memory.HeapInuse)
			count += len(some)
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}

	b.ReportMetric(float64(count), "ranges")
	b.ReportMetric(float64(most)/(1<<20), "MiB-heap")
	if err := n.Delete(b.Context(), v.ID); err != nil {
		b.Fatal(err)
	}
}

// spread writes a block to each MiB of the first part of a file, and makes the rest of it copies of that,
// which share its blocks.
func spread(b *testing.B, path string, part, size int64) {
	b.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()

	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	for at := int64(0); at < part; at += 1 << 20 {
		if _, err := f.WriteAt(bytes.Repeat([]byte("data"), block/4), at); err != nil {
			b.Fatal(err)
		}
	}
	for ; part < size; part *= 2 {
		arg := unix.FileCloneRange{
			Src_fd:      int64(f.Fd()),
			Src_length:  uint64(part),
			Dest_offset: uint64(part),
		}
		if err := unix.IoctlFileCloneRange(int(f.Fd()), &arg); err != nil {
			b.Fatal(err)
		}
	}
}
