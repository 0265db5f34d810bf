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
)

// usrMerged is a layer as distributions have it since they merged /lib into /usr.
var usrMerged = []entry{
	dir("usr", 0o755),
	dir("usr/lib", 0o750),
	file("usr/lib/old", ""),
	symlink("lib", "usr/lib"),
}

// linkCase are layers, the lowest first, and what the last of them holds in the end.
type linkCase struct {
	layers [][]entry
	want   []string
}

// linkCases are those that need no directory that hides the layers below: only root can make one.
var linkCases = map[string]linkCase{
	"relative": {
		[][]entry{usrMerged, {file("lib/x", "1")}},
		[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/x = 1"},
	},
	"with what the layer has there itself": {[][]entry{
		usrMerged,
		{file("lib/d/x", "1"), file("usr/lib/d/y", "2"), file("lib/.wh.old", "")},
	},
		[]string{
			"usr/ 755", "usr/lib/ 750", "usr/lib/d/ 755", "usr/lib/d/x = 1", "usr/lib/d/y = 2",
			"usr/lib/old hidden",
		}},
	"a directory that the layer describes keeps its description": {[][]entry{
		usrMerged,
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
		[][]entry{usrMerged, {dir("lib", 0o700), file("lib/x", "1")}},
		[]string{"lib/ 700", "lib/x = 1"},
	},
	"a link that a layer between has removed leads nowhere": {[][]entry{
		usrMerged,
		{file(".wh.lib", "")},
		{file("lib/x", "1")},
	},
		[]string{"lib/ 755", "lib/x = 1"}},
	"links in a circle and to a file are replaced": {[][]entry{{
		symlink("a", "b"), symlink("b", "a"), file("f", ""), symlink("c", "f"), symlink("d", "d/d"),
	},
		{file("a/x", "1"), file("c/x", "2"), file("d/d/x", "3")}},
		[]string{"a/ 755", "a/x = 1", "c/ 755", "c/x = 2", "d/ 755", "d/d/ 755", "d/d/x = 3"}},
	"a hard link's target by a link": {[][]entry{usrMerged, {linked(tar.TypeLink, "lib/again", "lib/old")}},
		[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/again = ", "usr/lib/old = "}},
	"a directory there that moves on itself": {[][]entry{
		{dir("b", 0o700), symlink("a", "b"), dir("c", 0o711), symlink("b/d", "../c")},
		{file("a/d/x", "1"), file("b/d/y", "2")}}, []string{"b/ 700", "c/ 711", "c/x = 1", "c/y = 2"}},
	"a directory with an entry by way of the link": {[][]entry{
		usrMerged, {dir("lib/d", 0o700), file("lib/d/x", "1"), file("usr/lib/d/y", "2")}},
		[]string{"usr/ 755", "usr/lib/ 750", "usr/lib/d/ 700", "usr/lib/d/x = 1", "usr/lib/d/y = 2"}},
	"an own link there": {[][]entry{usrMerged, {symlink("usr/lib/d", "/opt"), file("lib/d/x", "1")}},
		[]string{"opt/ 755", "opt/x = 1", "usr/ 755", "usr/lib/ 750", "usr/lib/d -> /opt"}},
	"a hard link in the place of what is hidden": {[][]entry{{file("a", "old"), file("b", "1")},
		{file(".wh.a", ""), linked(tar.TypeLink, "a", "b")}}, []string{"a = 1", "b = 1"}},
	"a hard link to a link that the layer passes through": {[][]entry{usrMerged,
		{file("lib/x", "1"), linked(tar.TypeLink, "again", "lib")}},
		[]string{"again -> usr/lib", "lib -> usr/lib", "usr/ 755", "usr/lib/ 750", "usr/lib/x = 1"}},
}

// A layer that has lib/x without an entry for lib means whatever lib is: in an image whose lib is a link to
// usr/lib, a file there.
func TestFilesGoWhereTheLinksBelowLead(t *testing.T) {
	for name, c := range linkCases {
		t.Run(name, c.check)
	}
}

func (c linkCase) check(t *testing.T) {
	base := t.TempDir()
	got := stack(t, base, c.layers...)
	if diff := cmp.Diff(c.want, got); diff != "" {
		t.Errorf("the layer (-want +got):\n%s", diff)
	}
	if list, err := os.ReadDir(base); err != nil || len(list) != len(c.layers) {
		t.Errorf("beside the layers: %v, %v", list, err)
	}
}

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
