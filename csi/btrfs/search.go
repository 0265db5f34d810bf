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

// searchArgsV2 has room for some hundred items.
type searchArgsV2 struct {
	searchKey
	size  uint64 // of found, which is no part of the argument's size
	found [64 << 10]byte
}

// itemKey is where an item is in a tree.
type itemKey struct {
	object, offset uint64
	kind           uint32
}

// next is the key that follows.
func (k itemKey) next() itemKey {
	switch {
	case k.offset < math.MaxUint64:
		return itemKey{k.object, k.offset + 1, k.kind}
	case k.kind < math.MaxUint8:
		return itemKey{k.object, 0, k.kind + 1}
	}
	return itemKey{k.object + 1, 0, 0}
}

// scanner goes through the items of a tree from a key on, some hundred at a time.
type scanner struct {
	tree    uint64
	from    itemKey
	done    bool // there are no more items
	missing bool // there is no such tree
	arg     *searchArgsV2
}

// scan calls each with all items of a tree from a key on, in their order; see scanner.step.
func scan(f *os.File, tree uint64, from itemKey, each func(key itemKey, item []byte)) error {
	s := scanner{tree: tree, from: from}
	for !s.done {
		if err := s.step(f, each); err != nil {
			return err
		}
	}
	return nil
}

// lastFree is the largest number of an object that is not the kernel's own.
const lastFree = math.MaxUint64 - 256

// step calls each with the next items, whose bytes it may not keep; f is any file of the file system. A tree
// that does not exist has no items.
func (s *scanner) step(f *os.File, each func(key itemKey, item []byte)) error {
	if s.arg == nil {
		s.arg = &searchArgsV2{}
		s.arg.size = uint64(len(s.arg.found))
	}
	s.arg.searchKey = searchKey{
		tree:           s.tree,
		minObject:      s.from.object,
		maxObject:      lastFree,
		minOffset:      s.from.offset,
		maxOffset:      math.MaxUint64,
		maxTransaction: math.MaxUint64,
		minType:        s.from.kind,
		maxType:        math.MaxUint8,
		items:          math.MaxUint32,
	}

	err := ioctl(f, iocTreeSearchV2, s.arg)
	if errors.Is(err, unix.ENOENT) {
		s.done, s.missing = true, true
		return nil
	}
	if err != nil {
		return err
	}

	at := s.arg.found[:]
	for range s.arg.items {
		s.from = itemKey{
			object: binary.NativeEndian.Uint64(at[8:]),
			offset: binary.NativeEndian.Uint64(at[16:]),
			kind:   binary.NativeEndian.Uint32(at[24:]),
		}
		end := searchHeader + binary.NativeEndian.Uint32(at[28:])
		each(s.from, at[searchHeader:end])
		at = at[end:]
	}

	s.from = s.from.next()
	s.done = s.arg.items == 0
	return nil
}

// Extent is a part of a file that was written, and is in one piece on the disk.
type Extent struct {
	// In the file, in bytes.
	Offset, Size int64

	// Disk is the address of a piece of the disk, and Within where in it, unpacked, the extent begins. What
	// has the same of both has the same content. 0 is a piece of its own, to which nothing is equal.
	Disk, Within int64
}

// End is where the extent ends in the file.
func (e Extent) End() int64 { return e.Offset + e.Size }

// Extents returns extents of the open file f in their order: some hundred of those that begin at from or
// behind it, and where in the file they end: up to there they are all, at math.MaxInt64 of the whole file.
// Between them the file reads as zeroes. What was written to a file and is not yet in its place on the disk
// is not seen; in a read-only subvolume there is no such thing.
func Extents(f *os.File, from int64) (extents []Extent, until int64, err error) {
	const ownTree = 0
	return extentsIn(ownTree, f, from)
}

// extentsIn is Extents of the file with the number of f in a tree. A tree that is not there is an error: it
// would read as a file without extents, and be saved as zeroes.
func extentsIn(tree uint64, f *os.File, from int64) (extents []Extent, until int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return nil, 0, &os.PathError{Op: "stat", Path: f.Name(), Err: err}
	}

	s := scanner{tree: tree, from: itemKey{st.Ino, uint64(from), extentData}}
	until = from
	var broken error
	err = s.step(f, func(key itemKey, item []byte) {
		if key.object != st.Ino || key.kind != extentData {
			until = math.MaxInt64
			return
		}

		e, written, err := parseExtent(key.offset, item)
		if err != nil {
			broken = err
			return
		}
		until = e.End()
		if written {
			extents = append(extents, e)
		}
	})

	if s.missing {
		err = fmt.Errorf("the tree of its subvolume: %w", os.ErrNotExist)
	}
	if err = errors.Join(err, broken); err != nil {
		return nil, 0, fmt.Errorf("extents of %s from byte %d on: %w", f.Name(), from, err)
	}
	if s.done {
		until = math.MaxInt64
	}
	return extents, until, nil
}

// parseExtent reads a struct btrfs_file_extent_item. What is preallocated, or a hole, was not written.
func parseExtent(offset uint64, item []byte) (e Extent, written bool, err error) {
	// Of its fields: how many bytes an inline extent has, its kind, and then those of all others.
	const unpacked, kind, disk, within, size, end = 8, 20, 21, 37, 45, 53
	const inline, regular, preallocated = 0, 1, 2
	if len(item) <= kind || item[kind] != inline && len(item) < end {
		return Extent{}, false, fmt.Errorf("an extent item of %d bytes", len(item))
	}

	number := func(at int) int64 { return int64(binary.LittleEndian.Uint64(item[at:])) }
	e.Offset = int64(offset)
	switch item[kind] {
	case inline:
		e.Size = number(unpacked)
		written = true
	case regular, preallocated:
		e.Size = number(size)
		e.Disk = number(disk)
		e.Within = number(within)
		written = item[kind] == regular && e.Disk != 0
	default:
		return Extent{}, false, fmt.Errorf("an extent of kind %d", item[kind])
	}

	if e.Offset < 0 || e.Size <= 0 || e.Size > math.MaxInt64-e.Offset || e.Disk < 0 || e.Within < 0 {
		return Extent{}, false, fmt.Errorf("extent %+v", e)
	}
	return e, written, nil
}
