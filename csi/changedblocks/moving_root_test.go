package changedblocks_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// A balance moves all blocks, and the driver itself some when the pool shrinks: too much may be reported
// then, and nothing is missed.
func TestNothingIsMissedWhileBlocksAreMoved(t *testing.T) {
	n := newNode(t)
	btrfs, pool := testenv.Program(t, "btrfs", "btrfs-progs"), filepath.Join(n.Dir, "pool")
	v, base, target := n.two(256<<20, 2000)
	differ := differing(t, n.file(base), n.file(target))
	_, reported := n.changed(base, target, 0)
	needless := check(t, differ, reported)

	ctx, cancel := context.WithCancel(t.Context())
	var moves sync.WaitGroup
	moves.Go(func() {
		defer cancel()
		for range 3 {
			cmd := exec.CommandContext(ctx, btrfs, "balance", "start", "--enqueue", "--full-balance", pool)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("balance: %v: %s", err, out)
			}
		}
	})
	walks, most := 0, 0
	for ; ctx.Err() == nil; walks++ {
		_, reported := n.changed(base, target, 0)
		most = max(most, check(t, differ, reported))
	}
	moves.Wait()
	t.Logf("%d walks, with up to %d blocks that did not differ, of %d that did", walks, most, len(differ))

	_, reported = n.changed(base, target, 0)
	if after := check(t, differ, reported); after != needless {
		t.Errorf("%d blocks are reported that do not differ, before the moves it were %d", after, needless)
	}
	n.Remove(v.ID, "pod")
}

// Where transactions end all the time, both snapshots are still seen at one moment.
func TestABusyPoolIsLookedAtNevertheless(t *testing.T) {
	n := newNode(t)
	v, base, target := n.two(256<<20, 1000)
	_, want := n.changed(base, target, 0)

	file := filepath.Join(n.Dir, "pool", "busy")
	ctx, cancel := context.WithCancel(t.Context())
	var busy sync.WaitGroup
	busy.Go(func() {
		defer cancel()
		for range 200 {
			if err := errors.Join(os.WriteFile(file, nil, 0o600), n.Sync()); err != nil {
				t.Error(err)
			}
		}
	})
	walks := 0
	for ; ctx.Err() == nil; walks++ {
		if _, got := n.changed(base, target, 0); !slices.Equal(got, want) {
			t.Errorf("%d ranges, want %d", len(got), len(want))
		}
	}
	busy.Wait()
	t.Logf("%d walks while 200 transactions ended", walks)
	n.Remove(v.ID, "pod")
}

// Snapshots are made while somebody writes, with and without syncing: what is in flight is in one of them, or
// in the next.
func TestNothingIsMissedThatIsWrittenMeanwhile(t *testing.T) {
	n := newNode(t)
	const size = 64 << 20
	v, path := n.raw(size)

	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	for i := range 2 {
		writers.Go(func() {
			if err := writeUntil(ctx, path, i == 0); err != nil {
				t.Error(err)
			}
		})
	}
	var snapshots []volume.Volume
	for range 12 {
		snapshots = append(snapshots, n.snapshot(v))
	}
	cancel()
	writers.Wait()

	n.checkSnapshots(snapshots, size/block)
	n.Remove(v.ID, "pod")
}

// writeUntil writes numbered blocks over a device until ctx ends.
func writeUntil(ctx context.Context, path string, synced bool) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()

	data := make([]byte, block)
	for i := int64(0); ctx.Err() == nil; i++ {
		for at := range 8 {
			data[at] = byte(i >> (8 * at))
		}
		if _, err := f.WriteAt(data, i*7919%(64<<20/block)*block); err != nil {
			return err
		}
		if synced && i%16 == 0 {
			if err := f.Sync(); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

// All get their answers, in turns.
func TestAHundredAtOnce(t *testing.T) {
	n := newNode(t)
	v, base, target := n.two(256<<20, 3000)
	_, want := n.changed(base, target, 0)

	var all sync.WaitGroup
	for range 100 {
		all.Go(func() {
			var got ranges
			err := n.tracker.Changed(t.Context(), base.ID, target.ID, 0, func(_ int64, some ranges) error {
				got = append(got, some...)
				return nil
			})
			if err != nil || len(got) != len(want) {
				t.Errorf("%d ranges, want %d; %v", len(got), len(want), err)
			}
		})
	}
	all.Wait()
	n.Remove(v.ID, "pod")
}
