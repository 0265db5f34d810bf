package layer

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

func TestUnpackKeepsWhatTheLayerSays(t *testing.T) {
	testenv.Root(t)
	root := filepath.Join(t.TempDir(), "fs")
	suid := file("bin/su", "x")
	suid.Mode = 0o4755
	suid.Uid = 7
	suid.Gid = 8
	caps := file("bin/ping", "p")
	caps.PAXRecords = map[string]string{
		"SCHILY.xattr.security.capability": "\x01\x00\x00\x02\x00\x20" + strings.Repeat("\x00", 14),
	}
	_, err := unpackTo(t, root, archive(
		t,
		dir("./", 0o755),
		dir("tmp/", 0o1777),
		dir("bin", 0o755),
		suid,
		caps,
		file("bin/a", "first"),
		file("bin/a", "second"),
		linked(tar.TypeLink, "bin/b", "bin/a"),
		linked(tar.TypeSymlink, "sh", "/bin/a"),
		file("bin/.wh.gone", ""),
		file("etc/.wh..wh..opq", ""),
		file("sh/../etc/x", "1"),
	))
	if err != nil {
		t.Fatal(err)
	}

	if st := stat(t, root+"/bin/su"); st.Mode&0o7777 != 0o4755 || st.Uid != 7 || st.Gid != 8 {
		t.Errorf("su: mode %o owner %d:%d", st.Mode, st.Uid, st.Gid)
	}
	if st := stat(t, root+"/tmp"); st.Mode&0o7777 != 0o1777 || st.Mtim.Sec != 1000 {
		t.Errorf("tmp: mode %o time %d", st.Mode, st.Mtim.Sec)
	}
	if st := stat(t, root+"/bin/b"); st.Nlink != 2 || st.Size != 6 {
		t.Errorf("hard link: %d links, %d bytes", st.Nlink, st.Size)
	}
	if st := stat(t, root+"/bin/gone"); st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != 0 {
		t.Errorf("whiteout: mode %o", st.Mode)
	}

	value := make([]byte, 64)
	if n, err := unix.Getxattr(root+"/bin/ping", "security.capability", value); err != nil || n != 20 {
		t.Errorf("capabilities: %d bytes, %v", n, err)
	}
	if n, err := unix.Getxattr(root+"/etc", "trusted.overlay.opaque", value); err != nil || n != 1 {
		t.Errorf("opaque: %v", err)
	}
}

func stat(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Error(err)
	}
	return st
}

func TestCompleteTakesFromTheLayersBelow(t *testing.T) {
	testenv.Root(t)
	base := t.TempDir()
	lower, upper := filepath.Join(base, "lower"), filepath.Join(base, "upper")
	tmp := dir("tmp", 0o1777)
	tmp.Uid = 5
	if _, err := unpackTo(t, lower, archive(t, tmp, file("data", "shared"))); err != nil {
		t.Fatal(err)
	}

	result, err := unpackTo(t, upper, archive(t, file("tmp/new", "n"), linked(tar.TypeLink, "again", "data")))
	if err != nil {
		t.Fatal(err)
	}
	if err := Complete(t.Context(), upper, []string{lower}, &result); err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(upper + "/tmp")
	if err != nil || info.Mode()&os.ModeSticky == 0 || info.Sys().(*syscall.Stat_t).Uid != 5 {
		t.Errorf("tmp is %v, %v", info, err)
	}
	if data, err := os.ReadFile(upper + "/again"); err != nil || string(data) != "shared" {
		t.Errorf("the file linked to holds %q, %v", data, err)
	}

	result, err = unpackTo(
		t,
		filepath.Join(base, "bad"),
		archive(t, linked(tar.TypeLink, "again", "nowhere")),
	)
	if err != nil {
		t.Fatal(err)
	}

	err = Complete(t.Context(), filepath.Join(base, "bad"), []string{lower}, &result)
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("a link to nowhere: %v", err)
	}
}

// A link that leads out of the root, or to what is not there, leads to a place inside: the layer is unpacked
// as a container would see it.
func TestEntriesThroughLinksAreUnpackedInside(t *testing.T) {
	testenv.Root(t)
	got := stack(t, t.TempDir(), []entry{
		symlink("up", "../../out"), file("up/x", "1"),
		symlink("abs", "/a/b"), file("abs/c/x", "2"),
		symlink("via", "abs/c"), file("via/y", "3"),
		file(".wh.gone", ""), file("gone/z", "4"),
		linked(tar.TypeLink, "hard", "via/y"),
	})

	want := []string{"a/ 755", "a/b/ 755", "a/b/c/ 755", "a/b/c/x = 2", "a/b/c/y = 3", "abs -> /a/b",
		"gone/ 755",
		"gone/z = 4",
		"hard = 3", "out/ 755", "out/x = 1", "up -> ../../out", "via -> abs/c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
