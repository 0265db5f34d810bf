package diskusage

import (
	"errors"
	"fmt"
	"math"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/beneath"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// count adds up the trees below some directories, step by step. Sparse files count by their blocks, and a
// file of several names counts in part for each, so that nothing has to be remembered of it.
type count struct {
	// dirs are those that were not begun yet.
	dirs []string

	walk treewalk.Walk
	dev  uint64

	bytes, inodes float64
	entries       int

	// unseen is how many entries could not be looked at, and err is why the first could not.
	unseen int
	err    error

	// whole is what the file system of a tree takes that is deeper than a walk goes. Nobody hides there what
	// he has written.
	whole Usage
}

// entriesPerLook is how many entries are counted between two looks at the clock.
const entriesPerLook = 64

// step counts up to so many entries, or until the time has come. It returns true when all is counted.
func (c *count) step(until time.Time, entries int) (done bool) {
	for last := c.entries; c.entries-last < entries; {
		for range entriesPerLook {
			if !c.next() {
				return true
			}
			c.entries++
		}
		if !time.Now().Before(until) {
			return false
		}
	}
	return false
}

// next counts one entry. It returns false when there is none left.
func (c *count) next() bool {
	if c.walk.Depth() < 0 {
		if len(c.dirs) == 0 {
			return false
		}

		dir := c.dirs[0]
		c.dirs = c.dirs[1:]
		if err := c.begin(dir); err != nil {
			c.miss(fmt.Errorf("%s: %w", dir, err))
		}

		return true
	}

	dir, name, err := c.walk.Next()
	switch {
	case err != nil:
		c.miss(err)
	case dir >= 0:
		c.entry(dir, name)
	}

	return true
}

// begin counts a directory and makes it the root of the walk. Any other file is counted alone.
func (c *count) begin(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}

	c.dev = st.Dev
	c.add(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}

	return c.walk.Enter(fd, ".", &st)
}

// entry counts an entry of a directory and goes down if it is one. Other file systems are not the tree's.
func (c *count) entry(dir int, name string) {
	var st unix.Stat_t
	if err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		c.miss(err)
		return
	}

	if st.Dev != c.dev {
		return
	}

	c.add(&st)
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return
	}

	fd, err := beneath.Open(dir, name, unix.O_PATH|unix.O_DIRECTORY, beneath.NoLinks|beneath.OneFileSystem)
	if err != nil {
		c.miss(err)
		return
	}

	defer unix.Close(fd)

	// It may be another one by now.
	if err := unix.Fstat(fd, &st); err != nil {
		c.miss(err)
		return
	}

	err = c.walk.Enter(fd, name, &st)
	if errors.Is(err, treewalk.ErrDeep) {
		// The rest of the tree adds nothing to that.
		c.whole = wholeOf(fd)
		c.walk.Close()
	}
	if err != nil {
		c.miss(err)
	}
}

// wholeOf returns what all that is on the file system of a file takes.
func wholeOf(fd int) Usage {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		return Usage{}
	}
	return Usage{Bytes: (fs.Blocks - fs.Bfree) * uint64(fs.Bsize), Inodes: fs.Files - fs.Ffree}
}

func (c *count) add(st *unix.Stat_t) {
	names := 1.0
	if st.Mode&unix.S_IFMT != unix.S_IFDIR && st.Nlink > 1 {
		names = float64(st.Nlink)
	}
	c.bytes += float64(st.Blocks*512) / names
	c.inodes += 1 / names
}

// miss notes that something could not be counted. What is gone meanwhile, or has become a link or a mount
// point, need not be.
func (c *count) miss(err error) {
	gone := []error{unix.ENOENT, unix.ENOTDIR, unix.ELOOP, unix.EXDEV}
	for _, is := range gone {
		if errors.Is(err, is) {
			return
		}
	}

	c.unseen++
	if c.err == nil {
		c.err = err
	}
}

// usage is what was counted up to now. What cannot be counted may be all there is.
func (c *count) usage() Usage {
	return Usage{
		Bytes:  max(uint64(math.Round(c.bytes)), c.whole.Bytes),
		Inodes: max(uint64(math.Round(c.inodes)), c.whole.Inodes),
	}
}

func (c *count) close() { c.walk.Close() }
