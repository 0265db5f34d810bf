package btrfspool_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/btrfspool"
	"github.com/trivet-node/trivet/csi/nodetest"
	"github.com/trivet-node/trivet/csi/volume"
)

// onDisk returns the size of a pool's file and how many bytes of it have blocks.
func onDisk(t *testing.T, dir string) (size, blocks int64) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(dir, "pool.img"), &st); err != nil {
		t.Fatal(err)
	}
	return st.Size, st.Blocks * 512
}

// A writer who goes as fast as the machine can never meets the end of the pool, which is as large as its
// content and little more, before and afterwards.
func TestPoolIsAheadOfItsContentAndBehindItsEnd(t *testing.T) {
	const written = 3 << 30
	n := nodetest.New(t, 16<<30)
	v := n.MustCreate(volume.Request{Name: "v", Required: 4 << 30, Backend: "btrfs"})
	before, _ := onDisk(t, n.Dir)
	if got := n.Fill(n.Use(v, "pod"), written); got != written {
		t.Errorf("only %d bytes could be written", got)
	}
	if err := n.Sync(); err != nil {
		t.Fatal(err)
	}

	if size, blocks := onDisk(t, n.Dir); size < written || blocks < size {
		t.Errorf("the pool has %d bytes, %d of them on disk", size, blocks)
	}

	n.Remove(v.ID, "pod")
	n.Eventually("the disk has its bytes back", func() error {
		size, blocks := onDisk(t, n.Dir)
		if blocks < size {
			t.Fatalf("the pool has %d bytes, %d of them on disk", size, blocks)
		}
		if size > before+2<<30 {
			return fmt.Errorf("the pool has %d bytes, it had %d", size, before)
		}

		return n.Sync()
	})
}

// What somebody else fills the disk with costs the writes that do not fit, and nothing else, as long as it
// lasts.
func TestFullDiskCostsTheWritesThatDoNotFit(t *testing.T) {
	n := nodetest.NewOnDisk(t, 2<<30, 0)
	one := n.MustCreate(volume.Request{Name: "one", Required: 1 << 30, Backend: "btrfs"})
	other := n.MustCreate(volume.Request{Name: "other", Required: 64 << 20, Backend: "btrfs"})
	at, beside := n.Use(one, "pod"), n.Use(other, "pod")
	n.Write(one, at)
	n.Write(other, beside)

	makeRoom := n.FillDisk()
	if written := n.Fill(at, 1<<30); written == 1<<30 {
		t.Errorf("%d bytes were written to a full disk", written)
	}

	// Nobody else notices.
	for range 20 {
		n.CheckRead(other, beside)
		n.Write(other, beside)
		n.CheckRead(one, at)
		n.Write(one, at)
	}

	if err := os.Remove(filepath.Join(at, "filled")); err != nil {
		t.Fatal(err)
	}
	n.Eventually("there is room in the pool again", func() error {
		return errors.Join(n.Sync(), os.WriteFile(filepath.Join(at, "more"), make([]byte, 16<<20), 0o600))
	})

	makeRoom()
	n.Eventually("the volume can be filled", func() error {
		if written := n.Fill(at, 900<<20); written < 900<<20 {
			return fmt.Errorf("%d bytes were written", written)
		}
		return nil
	})

	n.Remove(one.ID, "pod")
	n.Remove(other.ID, "pod")
}

func TestReservedVolumeIsWrittenInFullOnAFullDisk(t *testing.T) {
	const size = 700 << 20
	n := nodetest.NewOnDisk(t, 2<<30, 0)
	v := n.MustCreate(volume.Request{
		Name:     "v",
		Required: size / 2,
		Backend:  "btrfs",
		Reserve:  new(true),
	})
	if _, err := n.Grow(t.Context(), v.ID, size, 0); err != nil {
		t.Fatal(err)
	}

	n.Kill()
	n.Start()
	n.FillDisk()
	target := n.Use(v, "pod")
	if written := n.Fill(target, size); written < size {
		t.Errorf("only %d of %d bytes could be written", written, size)
	}

	more := volume.Request{
		Name:     "more",
		Required: size,
		Backend:  "btrfs",
		Access:   volume.Filesystem,
		Reserve:  new(true),
	}
	if _, err := n.Create(t.Context(), more); !errors.Is(err, volume.ErrFull) {
		t.Errorf("another one: %v", err)
	}

	n.Remove(v.ID, "pod")
}

// keeping has a pool kept until the test ends.
func keeping(t *testing.T, p *btrfspool.Pool) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var group sync.WaitGroup
	group.Go(func() { p.Keep(ctx) })
	return func() {
		cancel()
		group.Wait()
	}
}

// makeSparse makes a pool as the version before did: a sparse file, most of the disk in size, and another one
// with room for deletions.
func makeSparse(t *testing.T, dir string) {
	t.Helper()
	image := filepath.Join(dir, "pool.img")
	if err := errors.Join(
		os.WriteFile(image, nil, 0o600),
		os.Truncate(image, 24<<30),
		os.WriteFile(filepath.Join(dir, "pool.room"), []byte("room"), 0o600),
	); err != nil {
		t.Fatal(err)
	}

	args := []string{"--quiet", "--data", "single", "--metadata", "single", image}
	if out, err := exec.CommandContext(t.Context(), "mkfs.btrfs", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

func TestSparsePoolOfAnEarlierVersionIsTakenOver(t *testing.T) {
	d := dir(t)
	makeSparse(t, d)
	p := open(t, d, "sparse-"+filepath.Base(d), 0)
	spec := plainSpec("vol-1", 512<<20)
	mustCreate(t, p, spec)

	file := filepath.Join(d, "pool", "volumes", spec.ID, "f")
	if err := os.WriteFile(file, make([]byte, 400<<20), 0o600); err != nil {
		t.Fatal(err)
	}

	// The volume is charged for it when it is on disk.
	if err := p.Commit(); err != nil {
		t.Fatal(err)
	}

	before, err := p.Usage(spec, nil)
	if err != nil {
		t.Fatal(err)
	}

	stop := keeping(t, p)
	eventually(t, "all blocks are reserved", func() error {
		size, blocks := onDisk(t, d)
		if size > 8<<30 || blocks < size {
			return fmt.Errorf("the pool has %d bytes, %d of them on disk", size, blocks)
		}
		return p.Check(false)
	})
	stop()

	if _, err := os.Stat(filepath.Join(d, "pool.room")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the room for deletions is still kept: %v", err)
	}
	if st, err := os.Stat(file); err != nil || st.Size() != 400<<20 {
		t.Errorf("the file %v, %v", st, err)
	}
	if after, err := p.Usage(spec, nil); err != nil || after.Used > before.Used+4<<20 {
		t.Errorf("usage %+v, it was %+v, %v", after, before, err)
	}

	closePool(t, p, true)
}

// The timer of a machine trims all that is mounted.
func TestTrimmingTakesNoBlocksFromThePool(t *testing.T) {
	d := dir(t)
	p := open(t, d, "trim-"+filepath.Base(d), 4<<30)
	out, err := exec.CommandContext(t.Context(), "fstrim", filepath.Join(d, "pool")).CombinedOutput()
	if size, blocks := onDisk(t, d); blocks < size {
		t.Errorf("after fstrim (%v, %s) %d of %d bytes are on disk", err, out, blocks, size)
	}
	closePool(t, p, true)
}

// A change of the size that was cut short is finished or forgotten.
func TestInterruptedChangeOfSize(t *testing.T) {
	d := dir(t)
	p := open(t, d, "half-"+filepath.Base(d), 4<<30)
	image := filepath.Join(d, "pool.img")
	for _, mounted := range []bool{true, false} {
		closePool(t, p, !mounted)
		f, err := os.OpenFile(image, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}

		size, _ := onDisk(t, d)
		if err := errors.Join(unix.Fallocate(int(f.Fd()), 0, size, 64<<20), f.Close()); err != nil {
			t.Fatal(err)
		}

		p = open(t, d, "half-"+filepath.Base(d), 4<<30)
		var fs unix.Statfs_t
		err = unix.Statfs(filepath.Join(d, "pool"), &fs)
		if got := int64(fs.Blocks) * fs.Bsize; err != nil || got != size+64<<20 {
			t.Errorf("the file system has %d bytes, %v; want %d", got, err, size+64<<20)
		}
	}

	closePool(t, p, true)
}

// While the pool shrinks behind what is deleted, nobody who writes in place is hurt.
func TestShrinkingHurtsNobody(t *testing.T) {
	n := nodetest.New(t, 16<<30)
	v := n.MustCreate(volume.Request{
		Name:     "raw",
		Required: 256 << 20,
		Backend:  "btrfs",
		Access:   volume.Block,
	})

	file := n.Use(v, "pod")
	overwrite(t, file, 256<<20)

	ctx, cancel := context.WithCancel(t.Context())
	var writer sync.WaitGroup
	writer.Go(func() {
		for ctx.Err() == nil {
			if err := writeOver(file, 16<<20); err != nil {
				t.Error(err)
				return
			}
		}
	})

	for i := range 3 {
		other := n.MustCreate(volume.Request{
			Name:     fmt.Sprint("other", i),
			Required: 1 << 30,
			Backend:  "btrfs",
		})
		n.Fill(n.Use(other, "pod"), 900<<20)
		n.Remove(other.ID, "pod")
		if err := n.Sync(); err != nil {
			t.Error(err)
		}
	}

	cancel()
	writer.Wait()
	n.Remove(v.ID, "pod")
}
