package loopfile

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/image"
	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

func newFiles(t *testing.T) *Files {
	t.Helper()
	return &Files{dir: t.TempDir()}
}

// put makes the file of a volume as it is before it is formatted.
func put(t *testing.T, files *Files, id string, size int64) {
	t.Helper()
	f, err := os.Create(files.path(id))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
}

func TestUnusedFilesAreEmpty(t *testing.T) {
	files := newFiles(t)
	if _, err := files.Empty("v"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}

	put(t, files, "v", 1<<20)
	if empty, err := files.Empty("v"); !empty || err != nil {
		t.Errorf("a file without blocks: %t, %v", empty, err)
	}

	f, err := os.OpenFile(files.path("v"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	image.MarkUnused(f)
	if !image.IsUnused(files.path("v")) {
		testenv.Skip(t, "the file system of temporary directories has no extended attributes")
	}
	if _, err := f.WriteString("what mkfs writes"); err != nil {
		t.Fatal(err)
	}
	if empty, err := files.Empty("v"); !empty || err != nil {
		t.Errorf("a file that was formatted and never attached: %t, %v", empty, err)
	}
}

func TestRecoverFinishesAGrowth(t *testing.T) {
	files := newFiles(t)
	put(t, files, "v", 1<<20)
	if _, err := files.Recover(volume.Spec{ID: "v", Size: 2 << 20}, volume.Origin{}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(files.path("v")); err != nil || st.Size() != 2<<20 {
		t.Errorf("it has %d bytes, %v", st.Size(), err)
	}
	if _, err := files.Recover(volume.Spec{ID: "v", Size: 1 << 20}, volume.Origin{}); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(files.path("v")); err != nil || st.Size() != 2<<20 {
		t.Errorf("it has shrunk to %d bytes, %v", st.Size(), err)
	}
}

func TestRecoverFindsDamage(t *testing.T) {
	files := newFiles(t)
	if err := os.Mkdir(files.path("directory"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", files.path("link")); err != nil {
		t.Fatal(err)
	}

	for _, id := range []string{"missing", "directory", "link"} {
		if _, err := files.Recover(volume.Spec{
			ID:   id,
			Size: 1,
		}, volume.Origin{}); !errors.Is(err, volume.ErrDamaged) {
			t.Errorf("%s: %v", id, err)
		}
	}
}

func TestGrowTakesAllBlocks(t *testing.T) {
	files := newFiles(t)
	put(t, files, "v", 1<<20)
	for range 2 {
		if err := files.Grow(volume.Spec{ID: "v", Size: 2 << 20}); err != nil {
			t.Fatal(err)
		}
	}

	var st unix.Stat_t
	if err := unix.Stat(files.path("v"), &st); err != nil || st.Size != 2<<20 {
		t.Fatalf("it has %d bytes, %v", st.Size, err)
	}
	if err := files.Grow(volume.Spec{ID: "v", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Stat(files.path("v"), &st); err != nil || st.Size != 2<<20 {
		t.Errorf("it has shrunk to %d bytes, %v", st.Size, err)
	}
}

func TestWhatIsNotAllocatedIsUnwritten(t *testing.T) {
	files := newFiles(t)
	put(t, files, "sparse", 1<<20)
	put(t, files, "grown", 1<<20)
	if err := files.Grow(volume.Spec{ID: "grown", Size: 2 << 20}); err != nil {
		t.Fatal(err)
	}

	promises := []space.Promise{
		{ID: "sparse", Bytes: 1 << 20},
		{ID: "grown", Bytes: 2 << 20},
		{ID: "being made", Bytes: 4 << 20},
	}

	capacity, err := files.Capacity(space.Promised{Each: func() []space.Promise { return promises }})
	if err != nil || capacity.Unwritten != 5<<20 {
		t.Errorf("capacity %+v, %v", capacity, err)
	}
}

func TestListNamesAllVolumes(t *testing.T) {
	files := newFiles(t)
	put(t, files, "a", 1)
	put(t, files, "b", 1)
	ids, err := files.List()
	if slices.Sort(ids); err != nil || !slices.Equal(ids, []string{"a", "b"}) {
		t.Errorf("%q, %v", ids, err)
	}
}
