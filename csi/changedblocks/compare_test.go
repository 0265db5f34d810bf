package changedblocks

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
)

func TestBlocksOfOnePlaceAreTheSame(t *testing.T) {
	type extents = []btrfs.Extent
	at := func(offset, size, disk, within int64) btrfs.Extent {
		return btrfs.Extent{
			Offset: offset,
			Size:   size,
			Disk:   disk,
			Within: within,
		}
	}

	for _, c := range []struct {
		name         string
		base, target extents
		want         []Range
	}{
		{"nothing was written", nil, nil, nil},
		{"the same", extents{at(2, 4, 100, 0)}, extents{at(2, 4, 100, 0)}, nil},
		{"written", nil, extents{at(2, 4, 100, 0)}, []Range{{2, 4}}},
		{"made zeroes", extents{at(2, 4, 100, 0)}, nil, []Range{{2, 4}}},
		{"elsewhere", extents{at(2, 4, 100, 0)}, extents{at(2, 4, 200, 0)}, []Range{{2, 4}}},
		{"another part of the same", extents{at(2, 4, 100, 0)}, extents{at(2, 4, 100, 1)}, []Range{{2, 4}}},
		{
			"the middle",
			extents{at(0, 8, 100, 0)},
			extents{at(0, 3, 100, 0), at(3, 2, 200, 0), at(5, 3, 100, 5)},
			[]Range{{3, 2}},
		},
		{"in pieces", extents{at(0, 8, 100, 0)}, extents{at(0, 3, 100, 0), at(3, 5, 100, 3)}, nil},
		{"neighbors", nil, extents{at(0, 3, 100, 0), at(3, 5, 200, 0)}, []Range{{0, 8}}},
		{"without a place", extents{at(0, 4, 0, 0)}, extents{at(0, 4, 0, 0)}, []Range{{0, 4}}},
		{"beyond the end", nil, extents{at(6, 9, 100, 0)}, []Range{{6, 4}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := compare(c.base, c.target, 0, 10); !slices.Equal(got, c.want) {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// Whatever the extents are, each byte is found, once, and no other.
func TestCompareFindsWhatLookingAtEachByteDoes(t *testing.T) {
	const size = 64
	random := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		base, was := randomExtents(random, size)
		target, is := randomExtents(random, size)
		from := random.Int64N(size)
		to := from + random.Int64N(size-from+1)

		var found [size]bool
		last := from
		for i, r := range compare(base, target, from, to) {
			if r.Size <= 0 || r.Offset < last || i > 0 && r.Offset == last || r.Offset+r.Size > to {
				t.Fatalf("%v and %v from %d to %d: range %v", base, target, from, to, r)
			}
			last = r.Offset + r.Size
			for b := r.Offset; b < last; b++ {
				found[b] = true
			}
		}

		for b := from; b < to; b++ {
			if want := was[b] != is[b]; found[b] != want {
				t.Fatalf("%v and %v from %d to %d: byte %d is %v", base, target, from, to, b, found[b])
			}
		}
	}
}

// randomExtents returns extents of a file, and where each of its bytes is; 0: nowhere.
func randomExtents(random *rand.Rand, size int64) (extents []btrfs.Extent, places []int64) {
	places = make([]int64, size)
	for at := random.Int64N(6); at < size; at += random.Int64N(3) {
		e := btrfs.Extent{
			Offset: at,
			Size:   min(1+random.Int64N(8), size-at),
			Disk:   (1 + random.Int64N(3)) << 20,
			Within: random.Int64N(3),
		}
		extents = append(extents, e)
		for b := range e.Size {
			places[at+b] = e.Disk + e.Within + b
		}
		at = e.End()
	}
	return extents, places
}
