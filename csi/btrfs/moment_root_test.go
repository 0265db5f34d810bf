package btrfs_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// subvolumes makes empty ones, and returns their open root directories.
func subvolumes(t *testing.T, parent *os.File, count int) []*os.File {
	t.Helper()
	var roots []*os.File
	for i := range count {
		name := fmt.Sprint("v", i)
		if err := btrfs.Create(parent, name); err != nil {
			t.Fatal(err)
		}
		root, err := btrfs.Open(parent, name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		roots = append(roots, root)
	}
	return roots
}

// count writes rising numbers, each to one subvolume after the other, and syncs each, until stop is called.
func count(t *testing.T, roots []*os.File) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var files []*os.File
	for _, root := range roots {
		f, err := os.Create(filepath.Join(root.Name(), "number"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}

	done := make(chan error, 1)
	go func() {
		var err error
		for number := uint64(1); ctx.Err() == nil && err == nil; number++ {
			for _, f := range files {
				_, failed := f.WriteAt(binary.BigEndian.AppendUint64(nil, number), 0)
				err = errors.Join(err, failed, f.Sync())
			}
		}
		done <- err
	}()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// One after the other, snapshots would have a number that is not yet in an earlier one.
func TestSnapshotsAreOfOneMoment(t *testing.T) {
	parent := fresh(t)
	scratch := filepath.Join(parent.Name(), "scratch")
	for _, members := range []int{1, 2, 5} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			home := filepath.Join(parent.Name(), fmt.Sprint("of", members))
			if err := os.Mkdir(home, 0o700); err != nil {
				t.Fatal(err)
			}
			dir, err := os.Open(home)
			if err != nil {
				t.Fatal(err)
			}
			defer dir.Close()

			roots := subvolumes(t, dir, members)
			defer count(t, roots)()
			for round := range 10 {
				checkMoment(t, dir, scratch, roots, round)
			}
		})
	}

	if _, err := os.Stat(scratch); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("scratch is left: %v", err)
	}
}

func checkMoment(t *testing.T, dir *os.File, scratch string, roots []*os.File, round int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var copies []btrfs.Copy
	for i, root := range roots {
		copies = append(copies, btrfs.Copy{Name: fmt.Sprintf("s%d-%d", round, i), Source: root})
	}
	if err := btrfs.SnapshotsOfOneMoment(ctx, dir, scratch, copies); err != nil {
		t.Fatal(err)
	}

	var numbers []uint64
	for _, c := range copies {
		data, err := os.ReadFile(filepath.Join(dir.Name(), c.Name, "number"))
		if err != nil {
			t.Fatal(err)
		}
		data = append(data, make([]byte, 8)...)
		numbers = append(numbers, binary.BigEndian.Uint64(data))
		if err := os.WriteFile(filepath.Join(dir.Name(), c.Name, "x"), nil, 0o600); err == nil {
			t.Errorf("%s can be written", c.Name)
		}
	}

	// The writer is at one place of its round.
	for i := 1; i < len(numbers); i++ {
		if numbers[i] > numbers[i-1] || numbers[i]+1 < numbers[0] {
			t.Fatalf("round %d: the snapshots have the numbers %d", round, numbers)
		}
	}
}

func TestNoMomentIsAnError(t *testing.T) {
	parent := fresh(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	// Of one subvolume there is always a moment.
	scratch := filepath.Join(parent.Name(), "scratch")
	roots := subvolumes(t, parent, 1)
	err := btrfs.SnapshotsOfOneMoment(ctx, parent, scratch, []btrfs.Copy{{Name: "s", Source: roots[0]}})
	if err != nil {
		t.Error(err)
	}

	// A name that is taken fails, and the next call is not disturbed by what that leaves.
	// Nor by what a killed process left.
	left := filepath.Join(scratch, "0")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(left)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := btrfs.Snapshot(dir, "s", roots[0], true); err != nil {
		t.Fatal(err)
	}

	err = btrfs.SnapshotsOfOneMoment(ctx, parent, scratch, []btrfs.Copy{{Name: "s", Source: roots[0]}})
	if !errors.Is(err, os.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	err = btrfs.SnapshotsOfOneMoment(ctx, parent, scratch, []btrfs.Copy{{Name: "s2", Source: roots[0]}})
	if err != nil {
		t.Error(err)
	}
}
