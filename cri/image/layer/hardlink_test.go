package layer

import (
	"archive/tar"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// A layer can link to what a lower one has: files of any kind, by any of their names, which stay one file.
func TestHardLinksAcrossLayers(t *testing.T) {
	fifo := entry{Header: tar.Header{Typeflag: tar.TypeFifo, Name: "usr/fifo", Mode: 0o620}}
	low := []entry{dir("usr", 0o750), symlink("lib", "usr"), file("usr/f", "data"), fifo,
		symlink("usr/s", "nowhere"),
		file("usr/removed", "old")}
	hard := func(name, target string) entry { return linked(tar.TypeLink, name, target) }
	high := []entry{hard("f1", "usr/f"), hard("lib/f2", "lib/f"), hard("f3", "f1"),
		hard("s1", "lib/s"), hard("fifo1", "usr/fifo"), file("usr/own", "1"),
		hard("own1", "lib/own"), hard("kept", "usr/removed"), file("usr/.wh.removed", "")}
	base := t.TempDir()
	got := stack(t, base, low, high)
	want := []string{"f1 = data", "f3 = data", "fifo1 hidden", "kept = old", "own1 = 1", "s1 -> nowhere",
		"usr/ 750", "usr/f = data",
		"usr/f2 = data", "usr/fifo hidden", "usr/own = 1", "usr/removed hidden", "usr/s -> nowhere"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("(-want +got):\n%s", diff)
	}

	links := map[string]uint64{"f1": 4, "usr/f": 4, "s1": 2, "fifo1": 2, "own1": 2, "kept": 1}
	for name, want := range links {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(base, "layer1", name), &st); err != nil || st.Nlink != want {
			t.Errorf("%s has %d names, %v; want %d", name, st.Nlink, err, want)
		}
		if name == "fifo1" && (st.Mode&unix.S_IFMT != unix.S_IFIFO || st.Mode&0o777 != 0o620) {
			t.Errorf("fifo1 has mode %o", st.Mode)
		}
	}
}

func TestHardLinkKeepsTheHolesBelow(t *testing.T) {
	base := t.TempDir()
	const size = 1 << 30
	lower, upper := filepath.Join(base, "lower"), filepath.Join(base, "upper")
	if _, err := unpackTo(t, lower, sparse(t, "sparse", size)); err != nil {
		t.Fatal(err)
	}

	result, err := unpackTo(t, upper, archive(t, linked(tar.TypeLink, "again", "sparse")))
	if err != nil {
		t.Fatal(err)
	}
	if err := Complete(t.Context(), upper, []string{lower}, &result); err != nil {
		t.Fatal(err)
	}

	var st unix.Stat_t
	if err := unix.Stat(upper+"/again", &st); err != nil || st.Size != size || st.Blocks*512 > 64<<10 {
		t.Errorf("%d bytes, %d on the disk, %v", st.Size, st.Blocks*512, err)
	}
}
