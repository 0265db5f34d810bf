package diskusage

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
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
