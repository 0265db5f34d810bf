package changedblocks

import "github.com/trivet-node/trivet/csi/btrfs"

// Range is a part of a volume, in bytes.
type Range struct{ Offset, Size int64 }

// compare returns the parts between from and to in which two files do not share their blocks, in order. Both
// are given by their extents, between which they read as zeroes.
func compare(base, target []btrfs.Extent, from, to int64) []Range {
	var changed []Range
	for at := from; at < to; {
		was, wasUntil := placeAt(&base, at)
		is, isUntil := placeAt(&target, at)
		end := min(wasUntil, isUntil, to)
		if !was.isSame(is) {
			changed = appendRange(changed, at, end)
		}
		at = end
	}
	return changed
}

// place is where a byte of a file is on the disk.
type place struct {
	written bool // else it reads as zero
	disk    int64
	within  int64
}

// isSame reports whether it is certainly the same byte of the disk, or a zero on both sides.
func (p place) isSame(other place) bool {
	return p == other && (!p.written || p.disk != 0)
}

// placeAt returns where the byte at an offset is, and up to which offset those behind it follow on the disk.
// It takes off the list what ends before.
func placeAt(extents *[]btrfs.Extent, offset int64) (p place, until int64) {
	for len(*extents) > 0 && (*extents)[0].End() <= offset {
		*extents = (*extents)[1:]
	}

	if len(*extents) == 0 {
		return place{}, endOfFile
	}
	next := (*extents)[0]
	if next.Offset > offset {
		return place{}, next.Offset
	}

	return place{
		written: true,
		disk:    next.Disk,
		within:  next.Within + offset - next.Offset,
	}, next.End()
}

// appendRange appends the part from an offset to another, to the last one if that ends there.
func appendRange(ranges []Range, from, to int64) []Range {
	if last := len(ranges) - 1; last >= 0 && ranges[last].Offset+ranges[last].Size == from {
		ranges[last].Size += to - from
		return ranges
	}
	return append(ranges, Range{from, to - from})
}
