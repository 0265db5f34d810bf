package btrfspool

import (
	"github.com/trivet-node/trivet/csi/btrfs"
	"github.com/trivet-node/trivet/csi/volume"
)

// The pool's file has all its blocks, so that no write to what is in it can fail for want of disk. It is not
// as large as what was promised, but grows ahead of its content, by the headroom: more than a writer can
// write before the pool is looked at again.
const (
	// minSize is the smallest pool that makes sense: btrfs needs some of it for itself.
	minSize = 512 << 20

	// sizeStep is what sizes are multiples of.
	sizeStep = 16 << 20

	// The headroom is a tenth of the content, between these bounds. Where the pool cannot become large it is
	// a third of what it can be.
	minHeadroom = 1 << 30
	maxHeadroom = 8 << 30

	// burstFactor is how many looks a writer may go on as in the last one before it meets the edge.
	burstFactor = 4
)

// measure is all that the decision about the size of a pool rests on, in bytes.
type measure struct {
	room     btrfs.Room
	file     int64 // its size
	holes    int64 // blocks that it does not have, as in pools of earlier versions
	reserved int64 // promised to volumes that are reserved for, and not yet written
	burst    int64 // by how much the content grew lately from one look to the next
	disk     int64 // what the disk below still has for the pool
	most     int64 // how large the pool may be; 0: as large as the disk allows
}

// headroom is how much more than is reserved can be written to a pool that is as large as it should be.
func (m measure) headroom() int64 {
	largest := m.room.Device + max(0, m.disk)
	if m.most > 0 {
		largest = min(largest, m.most)
	}

	headroom := min(max(minHeadroom, m.room.Content()/10), maxHeadroom)
	headroom = max(headroom, burstFactor*m.burst)
	return min(headroom, largest/3)
}

// lacks is how many bytes the pool should be larger; negative: smaller.
func (m measure) lacks() int64 {
	data := m.headroom() + m.reserved - m.room.Free()

	// A transaction needs metadata, for which chunks are cut from what is not allocated.
	free := m.room.Unallocated + max(0, m.room.Metadata.Size-m.room.Metadata.Busy)
	return max(data, m.headroom()/4-free)
}

// change is by how many bytes the pool is to grow now; negative: to shrink. It grows in steps that are worth
// their while, and shrinks only when there is much to give back, in steps after each of which it can grow
// again: what is beyond the new end has to be moved, and while that lasts the pool cannot grow.
func (m measure) change() int64 {
	lacks, step := m.lacks(), m.headroom()/4
	if lacks > 0 {
		if m.holes > 0 {
			return 0
		}

		grow := min(max(lacks, step), m.disk)
		if m.most > 0 {
			grow = min(grow, m.most-m.room.Device)
		}

		return max(0, grow/sizeStep*sizeStep)
	}

	// Holes are blocks that the disk may not have: such a pool is made small first of all.
	spare := -lacks
	if m.holes == 0 {
		spare -= m.idle()
	}

	shrink := min(spare, max(step, minHeadroom/4), m.room.Device-minSize)
	return -max(0, shrink/sizeStep*sizeStep)
}

// idle is what a pool keeps beyond what it should have, lest it shrink and grow in turns. It does not where
// the disk is short.
func (m measure) idle() int64 {
	if m.disk < m.headroom() {
		return sizeStep
	}
	return m.headroom() + m.room.Device/8
}

// guardMargin is what metadata of what is reserved may take beside a part of it.
const guardMargin = 16 << 20

// limitOfOthers is how much all volumes that are not reserved may hold, which hold so many bytes now; -1: as
// much as each of them may.
func (m measure) limitOfOthers(used int64) int64 {
	if m.reserved == 0 {
		return -1
	}
	return used + max(0, m.room.Free()-m.reserved-m.reserved/64-guardMargin)
}

// isStuck reports whether the pool should be larger, and cannot be now.
func (m measure) isStuck() bool { return m.lacks() > 0 && m.change() == 0 }

// short reports whether the pool has less room than it should have by far, and cannot get it.
func (m measure) short() bool {
	return m.room.Free() < m.reserved+m.headroom()/4 && m.change() < sizeStep
}

// Room measures how large the pool is, what is in it, and what can be written before it has to grow, in
// bytes; volume.ErrInvalid in a directory of a disk, which is as large as that.
func (m *mountpoint) Room() (size, content, headroom int64, err error) {
	fs, leave, err := m.enter()
	if err != nil {
		return 0, 0, 0, err
	}
	defer leave()
	if fs.meter == nil {
		return 0, 0, 0, volume.ErrInvalid
	}

	room, err := fs.meter.Room()
	return room.Device, room.Content(), room.Free(), err
}
