package layer

import (
	"archive/tar"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/testenv"
)

// stack unpacks layers, the lowest first, and returns what the last one holds: "name mode", "name -> target",
// "name = content".
func stack(t *testing.T, base string, layers ...[]entry) []string {
	t.Helper()
	var lower []string
	for i, entries := range layers {
		dir := filepath.Join(base, fmt.Sprint("layer", i))
		result, err := unpackTo(t, dir, archive(t, entries...))
		if err != nil {
			t.Fatal(err)
		}
		if err := Complete(t.Context(), dir, lower, &result); err != nil {
			t.Fatal(err)
		}

		lower = append(lower, dir)
	}

	return held(t, lower[len(lower)-1])
}

func held(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == dir {
			return err
		}

		name := strings.TrimPrefix(p, dir+"/")
		switch {
		case d.IsDir():
			i, err := d.Info()
			list = append(list, fmt.Sprintf("%s/ %o", name, i.Mode().Perm()))
			return err

		case d.Type()&os.ModeSymlink != 0:
			to, err := os.Readlink(p)
			list = append(list, name+" -> "+to)
			return err

		case d.Type().IsRegular():
			data, err := os.ReadFile(p)
			list = append(list, name+" = "+string(data))
			return err
		}

		list = append(list, name+" hidden")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return list
}

func symlink(name, target string) entry { return linked(tar.TypeSymlink, name, target) }

// A layer that has lib/x without an entry for lib means whatever lib is: in an image whose lib is a link to
// usr/lib, a file there.
func TestFilesGoWhereTheLinksBelowLead(t *testing.T) {
	testenv.Root(t)
	merged := []entry{
		dir("usr", 0o755),
		dir("usr/lib", 0o750),
		file("usr/lib/old", ""),
		symlink("lib", "usr/lib"),
	}

	for name, c := range map[string]struct {
		layers [][]entry
		want   []string
	}{
		"relative": {
			[][]entry{merged, {file("lib/x", "1")}},
			[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/x = 1"},
		},
		"with what the layer has there itself": {[][]entry{
			merged,
			{file("lib/d/x", "1"), file("usr/lib/d/y", "2"), file("lib/.wh.old", "")},
		},
			[]string{
				"usr/ 755", "usr/lib/ 750", "usr/lib/d/ 755", "usr/lib/d/x = 1", "usr/lib/d/y = 2",
				"usr/lib/old hidden",
			}},
		"a directory that the layer describes keeps its description": {[][]entry{
			merged,
			{dir("usr/lib", 0o711), file("lib/x", "1")},
		},
			[]string{"usr/ 755", "usr/lib/ 711", "usr/lib/x = 1"}},
		"absolute, to what is not there": {
			[][]entry{{symlink("opt", "/srv/opt")}, {file("opt/x", "1")}},
			[]string{"srv/ 755", "srv/opt/ 755", "srv/opt/x = 1"},
		},
		"never out": {[][]entry{
			{symlink("out", "../../../outside"), symlink("sly", "/proc/self/root/outside")},
			{file("out/x", "1"), file("sly/y", "2")},
		},
			[]string{
				"outside/ 755", "outside/x = 1", "proc/ 755", "proc/self/ 755", "proc/self/root/ 755",
				"proc/self/root/outside/ 755", "proc/self/root/outside/y = 2",
			}},
		"to the root": {
			[][]entry{{symlink("top", "/")}, {file("top/a/x", "1")}},
			[]string{"a/ 755", "a/x = 1"},
		},
		"links to links, in different layers": {[][]entry{
			{dir("c", 0o700), symlink("b", "c")},
			{symlink("a", "b")},
			{file("a/x", "1"), file("b/y", "2")},
		},
			[]string{"c/ 700", "c/x = 1", "c/y = 2"}},
		"a link on the way of a link": {[][]entry{
			{dir("real", 0o700), symlink("usr", "real"), symlink("lib", "usr/lib")},
			{file("lib/x", "1"), file("usr/y", "2")},
		},
			[]string{"real/ 700", "real/lib/ 755", "real/lib/x = 1", "real/y = 2"}},
		"an entry for the directory replaces the link": {
			[][]entry{merged, {dir("lib", 0o700), file("lib/x", "1")}},
			[]string{"lib/ 700", "lib/x = 1"},
		},
		"so does hiding what is below": {
			[][]entry{merged, {file("lib/.wh..wh..opq", ""), file("lib/x", "1")}},
			[]string{"lib/ 755", "lib/x = 1"},
		},
		"a link that a layer between has removed leads nowhere": {[][]entry{
			merged,
			{file(".wh.lib", "")},
			{file("lib/x", "1")},
		},
			[]string{"lib/ 755", "lib/x = 1"}},
		"links in a circle and to a file are replaced": {[][]entry{{
			symlink("a", "b"), symlink("b", "a"), file("f", ""), symlink("c", "f"), symlink("d", "d/d"),
		},
			{file("a/x", "1"), file("c/x", "2"), file("d/d/x", "3")}},
			[]string{"a/ 755", "a/x = 1", "c/ 755", "c/x = 2", "d/ 755", "d/d/ 755", "d/d/x = 3"}},
		"a hard link's target by a link": {[][]entry{merged, {linked(tar.TypeLink, "lib/again", "lib/old")}},
			[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/again = ", "usr/lib/old = "}},
		"what the layer has there is not hidden": {[][]entry{merged, {file("lib/.wh.f", ""),
			file("usr/lib/f", "1"), file("lib/.wh.d", ""), file("usr/lib/d/x", "2"), file("lib/.wh.g", "")}},
			[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/d/ 755", "usr/lib/d/x = 2", "usr/lib/f = 1",
				"usr/lib/g hidden"}},
		"a directory there that moves on itself": {[][]entry{
			{dir("b", 0o700), symlink("a", "b"), dir("c", 0o711), symlink("b/d", "../c")},
			{file("a/d/x", "1"), file("b/d/y", "2")}}, []string{"b/ 700", "c/ 711", "c/x = 1", "c/y = 2"}},
		"a directory with an entry by way of the link": {[][]entry{
			merged, {dir("lib/d", 0o700), file("lib/d/x", "1"), file("usr/lib/d/y", "2")}},
			[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/d/ 700", "usr/lib/d/x = 1", "usr/lib/d/y = 2"}},
		"an own link there": {[][]entry{merged, {symlink("usr/lib/d", "/opt"), file("lib/d/x", "1")}},
			[]string{"opt/ 755", "opt/x = 1", "usr/ 755", "usr/lib/ 750", "usr/lib/d -> /opt"}},
		"a hard link in the place of what is hidden": {[][]entry{{file("a", "old"), file("b", "1")},
			{file(".wh.a", ""), linked(tar.TypeLink, "a", "b")}}, []string{"a = 1", "b = 1"}},
		"a hard link to a link that the layer passes through": {[][]entry{merged,
			{file("lib/x", "1"), linked(tar.TypeLink, "again", "lib")}},
			[]string{"again -> usr/lib", "lib -> usr/lib", "usr/ 755", "usr/lib/ 750", "usr/lib/x = 1"}},
		"the way there was removed": {[][]entry{merged, {file(".wh.usr", ""), file("lib/x", "1")}},
			[]string{"usr/ 755", "usr/lib/ 755", "usr/lib/x = 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			base := t.TempDir()
			got := stack(t, base, c.layers...)
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("the layer (-want +got):\n%s", diff)
			}
			if list, err := os.ReadDir(base); err != nil || len(list) != len(c.layers) {
				t.Errorf("beside the layers: %v, %v", list, err)
			}
		})
	}
}

// A layer can link to what a lower one has: files of any kind, by any of their names, which stay one file.
func TestHardLinksAcrossLayers(t *testing.T) {
	testenv.Root(t)
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
	testenv.Root(t)
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

// What a layer between hides is as if it had never been, also when it is not the name itself that is hidden.
func TestHiddenDirectoriesPassNothingOn(t *testing.T) {
	testenv.Root(t)
	low := []entry{dir("d", 0o700), dir("d/sub", 0o711), file("d/sub/f", "old")}
	for name, between := range map[string][]entry{
		"removed":  {file(".wh.d", "")},
		"replaced": {file("d", "")},
		"opaque":   {dir("d", 0o755), file("d/.wh..wh..opq", "")},
	} {
		t.Run(name, func(t *testing.T) {
			got := stack(t, t.TempDir(), low, between, []entry{file("d/sub/x", "1")})
			if diff := cmp.Diff([]string{"d/ 755", "d/sub/ 755", "d/sub/x = 1"}, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// Whatever links a layer has and whatever passes through them in the next one, Complete changes nothing but
// that one.
func FuzzComplete(f *testing.F) {
	f.Add("lib", "usr/lib", "usr", "/real", "lib/x", "usr/lib/d/y", "hard", "lib")
	f.Add("a", "../b/.", "b", "/a/c", "a/x", "a/c/.wh.y", "a/hard", "b/a/x")
	f.Add("a/b", "a", "c", "a/b/c", "a/b/c/d", "c/.wh..wh..opq", "a/b/c/d", "c")
	f.Fuzz(func(t *testing.T, link1, to1, link2, to2, file1, file2, hard, target string) {
		testenv.Root(t)
		low, err1 := pack(symlink(link1, to1), symlink(link2, to2))
		high, err2 := pack(file(file1, "1"), linked(tar.TypeLink, hard, target), file(file2, "2"))
		if err1 != nil || err2 != nil {
			// no tar can say that
			return
		}

		base := t.TempDir()
		lower, upper := filepath.Join(base, "lower"), filepath.Join(base, "upper")
		if _, err := unpackTo(t, lower, low); err != nil {
			return
		}

		result, err := unpackTo(t, upper, high)
		if err != nil {
			return
		}

		before := held(t, lower)
		_ = Complete(t.Context(), upper, []string{lower}, &result)
		if diff := cmp.Diff(before, held(t, lower)); diff != "" {
			t.Errorf("the layer below was changed:\n%s", diff)
		}
		if list, err := os.ReadDir(base); err != nil || len(list) != 2 {
			t.Fatalf("beside the layers: %v, %v", list, err)
		}
	})
}
