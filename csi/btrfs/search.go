package btrfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// The trees and items that are searched (linux/btrfs_tree.h).
const (
	rootTree  = 1
	chunkTree = 3
	quotaTree = 8

	extentData     = 108 // (file, extentData, offset in it)
	rootItem       = 132 // (subvolume, rootItem, _): it is there, or dead but not yet taken apart
	rootBackref    = 144 // (subvolume, rootBackref, the subvolume that it is in)
	rootRef        = 156 // (subvolume, rootRef, a subvolume in it)
	chunkItem      = 228 // (firstFree, chunkItem, its logical address)
	qgroupInfoKey  = 242 // (0, qgroupInfoKey, group)
	qgroupLimitKey = 244 // (0, qgroupLimitKey, group)
	qgroupRelation = 246 // (group, qgroupRelation, group above or below it)
)

type searchKey struct {
	tree, minObject, maxObject, minOffset, maxOffset, minTransaction, maxTransaction uint64
	minType, maxType, items                                                          uint32
	_                                                                                uint32
	_                                                                                [4]uint64
}

type searchArgs struct {
	searchKey
	found [3992]byte
}

// dataChunk is the flag of chunks of data (BTRFS_BLOCK_GROUP_DATA).
const dataChunk = 1 << 0

const searchHeader = 32 // transaction, object, offset uint64, type, length uint32

// search returns the offsets of all items with this object and type, in ascending order. It asks a tree as it
// is in memory, the transaction under way included.
func search(f *os.File, tree, object uint64, kind uint32) ([]uint64, error) {
	var offsets []uint64
	var from uint64
	for {
		arg := searchArgs{searchKey: searchKey{
			tree:           tree,
			minObject:      object,
			maxObject:      object,
			minType:        kind,
			maxType:        kind,
			minOffset:      from,
			maxOffset:      math.MaxUint64,
			maxTransaction: math.MaxUint64,
			items:          math.MaxUint32,
		}}

		err := ioctl(f, iocTreeSearch, &arg)
		if errors.Is(err, unix.ENOENT) {
			// There is no such tree: quotas are off.
			return offsets, nil
		}

		if err != nil {
			return nil, fmt.Errorf("search tree %d of the btrfs of %s: %w", tree, f.Name(), err)
		}
		if arg.items == 0 {
			return offsets, nil
		}

		at := arg.found[:]
		for range arg.items {
			offsets = append(offsets, binary.NativeEndian.Uint64(at[16:]))
			at = at[searchHeader+binary.NativeEndian.Uint32(at[28:]):]
		}

		last := offsets[len(offsets)-1]
		if last == math.MaxUint64 {
			return offsets, nil
		}

		from = last + 1
	}
}

// descendants returns the subvolumes in a subvolume, those in them and so on; each comes after the one that
// it is in.
func descendants(f *os.File, id uint64) ([]uint64, error) {
	all := []uint64{id}
	for i := 0; i < len(all); i++ {
		children, err := search(f, rootTree, all[i], rootRef)
		if err != nil {
			return nil, err
		}
		all = append(all, children...)
	}
	return all[1:], nil
}
