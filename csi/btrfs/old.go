package btrfs

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
)

// Blocks that are overwritten in place are written to a new place once more after a snapshot: those of
// extents that are not newer than the last snapshot of their subvolume, and that whether or not the snapshot
// is still there. The old extent stays charged as a whole until none of it is left in the file.

// LastSnapshot returns the number of the transaction in which the subvolume was last snapshotted, or, if it
// is newer and a snapshot itself, made.
func LastSnapshot(f *os.File, sub Subvolume) (uint64, error) {
	arg := searchArgs{searchKey: searchKey{
		tree:           rootTree,
		minObject:      sub.ID,
		maxObject:      sub.ID,
		minType:        rootItem,
		maxType:        rootItem,
		maxOffset:      math.MaxUint64,
		maxTransaction: math.MaxUint64,
		items:          1,
	}}
	if err := ioctl(f, iocTreeSearch, &arg); err != nil {
		return 0, fmt.Errorf("search for subvolume %d of the btrfs of %s: %w", sub.ID, f.Name(), err)
	}

	// struct btrfs_root_item: an inode, six numbers, the last snapshot.
	const lastSnapshot = 160 + 5*8
	if arg.items == 0 || binary.NativeEndian.Uint32(arg.found[28:]) < lastSnapshot+8 {
		return 0, fmt.Errorf("subvolume %d of the btrfs of %s: %w", sub.ID, f.Name(), os.ErrNotExist)
	}
	return binary.LittleEndian.Uint64(arg.found[searchHeader+lastSnapshot:]), nil
}

// Count counts the bytes of a subvolume's extents that were written between two transactions and that are
// still in its files: whole extents, as they are charged. It takes many steps for a large subvolume.
type Count struct {
	Bytes int64
	Done  bool

	scan        scanner
	first, last uint64 // transactions

	// An extent can be in a file in many pieces, which are not far from each other.
	seen, seenBefore map[uint64]struct{}
}

// NewCount begins a count.
func NewCount(sub Subvolume, first, last uint64) *Count {
	return &Count{
		Done:  first > last,
		scan:  scanner{tree: sub.ID, from: itemKey{firstFree, 0, extentData}},
		first: first,
		last:  last,
		seen:  map[uint64]struct{}{},
	}
}

const (
	// searchesOfStep is how many searches a step makes, which take some milliseconds together.
	searchesOfStep = 64

	// remembered is how many extents are remembered at least: more than there can be between two pieces of
	// one, which has 128 MiB at most.
	remembered = 1 << 15
)

// Step goes on with the count; f is any file of the file system.
func (c *Count) Step(f *os.File) error {
	for n := 0; n < searchesOfStep && !c.Done; n++ {
		if err := c.search(f); err != nil {
			return fmt.Errorf("count extents of subvolume %d of the btrfs of %s: %w",
				c.scan.tree, f.Name(), err)
		}
	}
	return nil
}

func (c *Count) search(f *os.File) error {
	err := c.scan.step(f, func(key itemKey, item []byte) {
		if key.kind == extentData {
			c.add(item)
		}
	})
	if c.scan.missing {
		c.Bytes = 0
	}
	c.Done = err == nil && c.scan.done
	return err
}

// add counts the extent of a struct btrfs_file_extent_item, unless it is in the item itself, or a hole.
func (c *Count) add(item []byte) {
	const kind, start, length, end = 20, 21, 29, 53
	if len(item) < end || item[kind] == 0 {
		return
	}

	written := binary.LittleEndian.Uint64(item)
	extent := binary.LittleEndian.Uint64(item[start:])
	if extent == 0 || written < c.first || written > c.last || c.isKnown(extent) {
		return
	}

	c.Bytes += int64(binary.LittleEndian.Uint64(item[length:]))
}

// isKnown reports whether an extent was counted before, and remembers it.
func (c *Count) isKnown(extent uint64) bool {
	if _, known := c.seen[extent]; known {
		return true
	}

	_, known := c.seenBefore[extent]
	if len(c.seen) >= remembered {
		c.seen, c.seenBefore = map[uint64]struct{}{}, c.seen
	}
	c.seen[extent] = struct{}{}
	return known
}
