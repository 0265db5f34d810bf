package layer

import (
	"archive/tar"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func FuzzUnpack(f *testing.F) {
	f.Add(archive(
		f,
		dir("d", 0o755),
		file("d/f", "x"),
		linked(tar.TypeSymlink, "l", "../.."),
		file("l/.wh.f", ""),
	))

	f.Add(archive(f, linked(tar.TypeLink, "h", "d/f"), file(".wh..wh..opq", "")))
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		_, _ = unpackTo(t, filepath.Join(base, "fs"), data)
		if list, err := os.ReadDir(base); err != nil || len(list) > 1 {
			t.Fatalf("beside the layer: %v, %v", list, err)
		}
	})
}

// Whatever a stream is, what is made of its tape is as long. It may be another one where files were replaced.
func FuzzTape(f *testing.F) {
	f.Add(archive(f, dir("d", 0o755), file("d/f", "x"), file(".wh.f", "y"), file("d/f", "z")))
	f.Add(append(archive(f, file("f", "x")), "and more"...))
	f.Fuzz(func(t *testing.T, data []byte) {
		base := t.TempDir()
		to, err := os.Create(filepath.Join(base, "tape"))
		if err != nil {
			t.Fatal(err)
		}
		defer to.Close()

		result, err := Unpack(t.Context(), filepath.Join(base, "fs"), tapedSource(data, to))
		if err != nil || !result.Taped {
			return
		}

		if got, err := played(t, base); err == nil && len(got) != len(data) {
			t.Errorf("%d bytes are made of %d", len(got), len(data))
		}
	})
}

// Whatever links a layer has and whatever passes through them in the next one, Complete changes nothing but
// that one.
func FuzzComplete(f *testing.F) {
	f.Add("lib", "usr/lib", "usr", "/real", "lib/x", "usr/lib/d/y", "hard", "lib")
	f.Add("a", "../b/.", "b", "/a/c", "a/x", "a/c/.wh.y", "a/hard", "b/a/x")
	f.Add("a/b", "a", "c", "a/b/c", "a/b/c/d", "c/.wh..wh..opq", "a/b/c/d", "c")
	f.Fuzz(func(t *testing.T, link1, to1, link2, to2, file1, file2, hard, target string) {
		low, err1 := pack(symlink(link1, to1), symlink(link2, to2))
		high, err2 := pack(file(file1, "1"), linked(tar.TypeLink, hard, target), file(file2, "2"))
		if err1 != nil || err2 != nil {
			// No tar can say that.
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
