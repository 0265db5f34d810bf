package diskusage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/internal/treewalk"
)

// largeTree makes a tree whose count takes several slices.
func largeTree(t *testing.T) (dir string, inodes uint64) {
	t.Helper()
	dir = testenv.MemoryDir(t)
	for d := range 100 {
		below := filepath.Join(dir, fmt.Sprint(d))
		must(t, os.Mkdir(below, 0o700))
		for f := range 1000 {
			must(t, os.Symlink("x", filepath.Join(below, fmt.Sprint(f))))
		}
	}
	return dir, 1 + 100*1001
}

func TestLargeTreeIsCountedToItsEndBesideOthers(t *testing.T) {
	dir, inodes := largeTree(t)
	other := t.TempDir()
	m := newMeter(t)

	// What is counted of it is a lower bound, and grows.
	var last uint64
	for range retry.Every(t.Context(), time.Millisecond) {
		got := m.Measure(t.Context(), "large", Tree{Dirs: []string{dir}, Activity: 1})
		if got.Inodes < last || got.Inodes > inodes || got.Time.IsZero() {
			t.Fatalf("%+v after %d inodes", got, last)
		}

		if !got.AtLeast {
			last = got.Inodes
			break
		}

		last = got.Inodes
		small := m.Measure(t.Context(), fmt.Sprint("small", last), Tree{Dirs: []string{other}, Activity: 1})
		if small.Usage != du(t, other) || small.AtLeast {
			t.Fatalf("%+v of a small tree", small)
		}
	}

	if last != inodes {
		t.Errorf("%d inodes, want %d", last, inodes)
	}
}

func TestCountsEndWithTheMeter(t *testing.T) {
	dir, _ := largeTree(t)
	m := newMeter(t)
	before := descriptors(t)
	m.Measure(t.Context(), "large", Tree{Dirs: []string{dir}, Activity: 1})
	m.Close()
	m.Measure(t.Context(), "another", Tree{Dirs: []string{dir}, Activity: 1})
	if left := descriptors(t); left > before {
		t.Errorf("%d descriptors, %d before", left, before)
	}
}

// Nobody gets around a limit by writing where a walk does not go.
func TestATreeThatIsTooDeepMayBeAllThereIs(t *testing.T) {
	dir := t.TempDir()
	must(t, os.Mkdir(filepath.Join(dir, "deeper"), 0o700))
	f, err := os.Open(dir)
	must(t, err)
	defer f.Close()
	var st unix.Stat_t
	must(t, unix.Fstat(int(f.Fd()), &st))

	c := &count{}
	defer c.close()
	must(t, c.begin(dir))
	for err == nil {
		err = c.walk.Enter(int(f.Fd()), "d", &st)
	}
	if !errors.Is(err, treewalk.ErrDeep) || c.usage() != (Usage{Bytes: uint64(st.Blocks) * 512, Inodes: 1}) {
		t.Fatalf("%+v, %v", c.usage(), err)
	}

	c.entry(int(f.Fd()), "deeper")
	var fs unix.Statfs_t
	must(t, unix.Statfs(dir, &fs))
	if used := fs.Files - fs.Ffree; c.unseen != 1 || c.usage().Inodes < used/2 {
		t.Errorf("%+v, %d were not seen (%v); the file system has %d files", c.usage(), c.unseen, c.err, used)
	}
	if c.next() {
		t.Errorf("the count goes on, %d directories down", c.walk.Depth())
	}
}
