package btrfs_test

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/trivet-node/trivet/csi/btrfs"
)

// made makes a subvolume, a snapshot of another one if source is not "".
func made(t *testing.T, dir *os.File, name, source string) btrfs.Subvolume {
	t.Helper()
	var err error
	if source == "" {
		err = btrfs.Create(dir, name)
	} else {
		of, openErr := btrfs.Open(dir, source)
		if openErr != nil {
			t.Fatal(openErr)
		}
		defer of.Close()
		err = btrfs.Snapshot(dir, name, of, true)
	}
	if err != nil {
		t.Fatal(err)
	}
	return inspected(t, dir, name)
}

func inspected(t *testing.T, dir *os.File, name string) btrfs.Subvolume {
	t.Helper()
	f, err := btrfs.Open(dir, name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sub, err := btrfs.Inspect(f)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

// A survey has what looking at each subvolume has, of those in the directory and of no other ones.
func TestASurveyHasWhatALookAtEachHas(t *testing.T) {
	root := fresh(t)
	if _, err := btrfs.EnableQuota(root); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root.Name(), "volumes")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()

	made(t, root, "elsewhere", "")
	made(t, dir, "free", "")
	limited := made(t, dir, "limited", "")
	shared := made(t, dir, "shared", "")
	made(t, dir, "copy", "limited")
	gone := made(t, dir, "gone", "")
	err = errors.Join(
		btrfs.Limit(dir, limited, 1<<20),
		btrfs.Limit(dir, shared, 2<<20),
		btrfs.LimitedTogether(dir, stat(t, dir), shared),
		btrfs.Limit(dir, gone, 3<<20),
		btrfs.Destroy(dir, "gone"),
	)
	if err != nil {
		t.Fatal(err)
	}
	nested, err := btrfs.Open(dir, "limited")
	if err != nil {
		t.Fatal(err)
	}
	defer nested.Close()
	made(t, nested, "nested", "")

	// Of one transaction and of several.
	for range 2 {
		checkSurvey(t, dir, "copy", "free", "limited", "shared")
		if err := btrfs.Sync(dir); err != nil {
			t.Fatal(err)
		}
	}
}

func checkSurvey(t *testing.T, dir *os.File, want ...string) {
	t.Helper()
	states, err := btrfs.Survey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got := slices.Sorted(maps.Keys(states)); !slices.Equal(got, want) {
		t.Fatalf("subvolumes %v, want %v", got, want)
	}

	info, err := btrfs.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range states {
		want, err := btrfs.Look(dir, info, inspected(t, dir, name))
		if got != want || err != nil {
			t.Errorf("%s: %+v in the survey; a look at it: %+v, %v", name, got, want, err)
		}
	}
}

// Hundreds of subvolumes do not fit into the answer to one search.
func TestASurveyOfManySubvolumesHasAll(t *testing.T) {
	root := fresh(t)
	if _, err := btrfs.EnableQuota(root); err != nil {
		t.Fatal(err)
	}

	var want []string
	for i := range 600 {
		name := "v" + string(rune('a'+i/26%26)) + string(rune('a'+i%26)) + string(rune('a'+i/676))
		sub := made(t, root, name, "")
		if err := btrfs.Limit(root, sub, int64(i+1)<<20); err != nil {
			t.Fatal(err)
		}
		want = append(want, name)
	}

	slices.Sort(want)
	checkSurvey(t, root, want...)
}
