package image

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/testenv"
)

// newImages are in a temporary directory, with mkfs programs that are never called.
func newImages(t *testing.T, fileSystems ...string) *Images {
	t.Helper()
	dir := t.TempDir()
	x := &Images{
		Path:     func(id string) string { return filepath.Join(dir, id) },
		instance: "test",
		mkfs:     map[string]string{},
	}
	for _, fs := range fileSystems {
		x.mkfs[fs] = "/bin/false"
	}
	return x
}

func TestFileSystemIsChosen(t *testing.T) {
	const mib = 1 << 20
	both, ext4, xfs := newImages(t, "ext4", "xfs"), newImages(t, "ext4"), newImages(t, "xfs")
	for _, c := range []struct {
		name   string
		images *Images
		size   int64
		fs     string
		want   int64 // size
	}{
		{"large", both, 300 * mib, "xfs", 300 * mib},
		{"small", both, 299 * mib, "ext4", 299 * mib},
		{"smaller than mkfs accepts", both, mib, "ext4", 8 * mib},
		{"small, and only xfs is there", xfs, mib, "xfs", 300 * mib},
		{"large, and only ext4 is there", ext4, 300 * mib, "ext4", 300 * mib},
	} {
		spec := volume.Spec{Size: c.size, Access: volume.Filesystem}
		if err := c.images.Complete(&spec, nil); err != nil || spec.FSType != c.fs || spec.Size != c.want {
			t.Errorf("%s: %+v, %v", c.name, spec, err)
		}
	}

	raw := volume.Spec{Size: mib, Access: volume.Block}
	if err := ext4.Complete(&raw, nil); err != nil || raw.FSType != "" || raw.Size != mib {
		t.Errorf("raw block: %+v, %v", raw, err)
	}
}

func TestFileSystemsThatCannotBeAreRefusedByName(t *testing.T) {
	images := newImages(t, "ext4")
	for _, c := range []struct {
		spec volume.Spec
		want string
	}{
		{volume.Spec{Access: volume.Filesystem, FSType: "xfs"}, "Debian package xfsprogs"},
		{volume.Spec{Access: volume.Filesystem, FSType: "ntfs"}, `"ntfs"`},
		{volume.Spec{Access: volume.Block, FSType: "ext4"}, `"ext4"`},
	} {
		err := images.Complete(&c.spec, nil)
		if !errors.Is(err, volume.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.spec, err, c.want)
		}
	}
}

func TestFileIsUnusedUntilItIsAttached(t *testing.T) {
	x := newImages(t)
	f, err := os.Create(x.Path("v"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	MarkUnused(f)
	if !IsUnused(x.Path("v")) {
		testenv.Skip(t, "the file system of temporary directories has no extended attributes")
	}

	for range 2 {
		if err := markUsed(x.Path("v")); err != nil {
			t.Fatal(err)
		}
		if IsUnused(x.Path("v")) {
			t.Error("it is not used")
		}
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
