package diskusage

import (
	"time"

	"golang.org/x/sys/unix"
)

const (
	// minAge is how old a figure is at least before the tree is counted again.
	minAge = 5 * time.Second

	// A tree is counted during one part in costShare of the time, but no later than after maxPause: that is
	// how often kubelet counts.
	costShare = 20
	maxPause  = time.Minute

	// Somebody else may write into a tree, such as another pod that was given a descriptor, and while this
	// one grows others may shrink. So a tree is counted now and then when only one of the signs says that it
	// may have changed.
	doubtAge       = 5 * time.Minute
	doubtCostShare = 200

	// Those others count when the file system has grown or shrunk by so much.
	otherBytes  = 64 << 20
	otherInodes = 10_000
)

// space is how much of a file system is in use.
type space struct {
	bytes  int64
	inodes int64

	// exact says that every file which grows, or is made, shows here at once.
	exact bool
}

// spaceOf returns how much is in use of the file system that holds a path. What cannot be found out is not
// exact.
func spaceOf(path string) space {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return space{}
	}

	// Others, such as btrfs, count when they write to the disk.
	known := st.Type == unix.EXT4_SUPER_MAGIC || st.Type == unix.XFS_SUPER_MAGIC ||
		st.Type == unix.TMPFS_MAGIC
	return space{
		bytes:  int64(st.Blocks-st.Bfree) * st.Bsize,
		inodes: int64(st.Files - st.Ffree),
		exact:  known && st.Blocks > 0 && st.Files > 0,
	}
}

// signs are what says that a tree may have changed.
type signs struct {
	activity int64
	space    space
	project  project
}

// counted is what is known of the last count of a tree.
type counted struct {
	// signs are those of the moment when it began.
	signs
	began time.Time
	cost  time.Duration

	// large says that the tree is one of those that take turns.
	large bool
}

// since are the differences between two looks at a tree.
type since struct {
	// ran says that those who write there have run.
	ran bool

	// bytes and inodes are by how much the use of the file system has changed, and changed says that it has.
	bytes, inodes int64
	changed       bool

	// project says that the kernel keeps the figure: what is counted is what was taken out of the project.
	project bool
}

func (s signs) since(last signs) since {
	d := since{
		ran:    s.activity == Unknown || s.activity != last.activity,
		bytes:  abs(s.space.bytes - last.space.bytes),
		inodes: abs(s.space.inodes - last.space.inodes),

		project: s.project.known && last.project.known,
	}
	exact := s.space.exact && last.space.exact
	d.changed = d.bytes != 0 || d.inodes != 0 || !exact
	return d
}

// same reports whether the tree is as it was.
func (d since) same() bool { return !d.ran || !d.changed }

// due reports whether a tree is to be counted again: whether it may have changed since the last count began,
// and that is long enough ago for what a count costs.
func (d since) due(age, cost time.Duration) bool {
	switch {
	case d.ran && d.changed && d.project:
		return age >= maxPause
	case d.ran && d.changed:
		return age >= min(max(minAge, costShare*cost), maxPause)
	case d.ran, d.bytes >= otherBytes, d.inodes >= otherInodes:
		return age >= max(doubtAge, doubtCostShare*cost)
	}
	return false
}

func abs(n int64) int64 { return max(n, -n) }
