package loopfile

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/space"
	"github.com/trivet-node/trivet/csi/volume"
)

// newFiles are in a temporary directory, with mkfs programs that are never called.
func newFiles(t *testing.T, fileSystems ...string) *Files {
	t.Helper()
	files := &Files{dir: t.TempDir(), instance: "test", mkfs: map[string]string{}}
	for _, fs := range fileSystems {
		files.mkfs[fs] = "/bin/false"
	}
	return files
}

func TestFileSystemIsChosen(t *testing.T) {
	const mib = 1 << 20
	both, ext4, xfs := newFiles(t, "ext4", "xfs"), newFiles(t, "ext4"), newFiles(t, "xfs")
	for _, c := range []struct {
		name  string
		files *Files
		size  int64
		fs    string
		want  int64 // size
	}{
		{"large", both, 300 * mib, "xfs", 300 * mib},
		{"small", both, 299 * mib, "ext4", 299 * mib},
		{"smaller than mkfs accepts", both, mib, "ext4", 8 * mib},
		{"small, and only xfs is there", xfs, mib, "xfs", 300 * mib},
		{"large, and only ext4 is there", ext4, 300 * mib, "ext4", 300 * mib},
	} {
		spec := volume.Spec{Size: c.size, Access: volume.Filesystem}
		if err := c.files.Complete(&spec, nil); err != nil || spec.FSType != c.fs || spec.Size != c.want {
			t.Errorf("%s: %+v, %v", c.name, spec, err)
		}
	}

	raw := volume.Spec{Size: mib, Access: volume.Block}
	if err := ext4.Complete(&raw, nil); err != nil || raw.FSType != "" || raw.Size != mib {
		t.Errorf("raw block: %+v, %v", raw, err)
	}
}

func TestFileSystemsThatCannotBeAreRefusedByName(t *testing.T) {
	files := newFiles(t, "ext4")
	for _, c := range []struct {
		spec volume.Spec
		want string
	}{
		{volume.Spec{Access: volume.Filesystem, FSType: "xfs"}, "Debian package xfsprogs"},
		{volume.Spec{Access: volume.Filesystem, FSType: "ntfs"}, `"ntfs"`},
		{volume.Spec{Access: volume.Block, FSType: "ext4"}, `"ext4"`},
	} {
		err := files.Complete(&c.spec, nil)
		if !errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.spec, err, c.want)
		}
	}
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

	markUnused(f)
	if !isUnused(files.path("v")) {
		t.Skip("the file system of temporary directories has no extended attributes")
	}
	if _, err := f.WriteString("what mkfs writes"); err != nil {
		t.Fatal(err)
	}
	if empty, err := files.Empty("v"); !empty || err != nil {
		t.Errorf("a file that was formatted and never attached: %t, %v", empty, err)
	}

	for range 2 {
		if err := markUsed(files.path("v")); err != nil {
			t.Fatal(err)
		}
		if empty, err := files.Empty("v"); empty || err != nil {
			t.Errorf("a file that was attached: %t, %v", empty, err)
		}
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

func TestExt4SizeIsReadFromItsSuperblock(t *testing.T) {
	super := make([]byte, 2048)
	binary.LittleEndian.PutUint16(super[1024+0x38:], 0xef53)
	binary.LittleEndian.PutUint32(super[1024+4:], 7)
	binary.LittleEndian.PutUint32(super[1024+0x18:], 2)
	binary.LittleEndian.PutUint32(super[1024+0x150:], 1)
	path := filepath.Join(t.TempDir(), "dev")
	read := func() (uint64, int64, error) {
		if err := os.WriteFile(path, super, 0o600); err != nil {
			t.Fatal(err)
		}

		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()

		return ext4Blocks(f)
	}
	if blocks, size, err := read(); blocks != 1<<32+7 || size != 4096 || err != nil {
		t.Errorf("%d blocks of %d bytes, %v", blocks, size, err)
	}

	super[1024+0x18] = 7
	if _, size, err := read(); err == nil {
		t.Errorf("blocks of %d bytes", size)
	}

	super[1024+0x18], super[1024+0x38] = 2, 0
	if blocks, _, err := read(); err == nil {
		t.Errorf("what is no ext4 has %d blocks", blocks)
	}
}
