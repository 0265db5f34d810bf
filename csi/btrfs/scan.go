package btrfs

import (
	"encoding/binary"
	"errors"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

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
