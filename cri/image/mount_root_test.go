package image_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

func TestContainersKeepTheLayersOfARemovedImage(t *testing.T) {
	testenv.Root(t)
	h, dir, state := newHub(t), t.TempDir(), testenv.ShortDir(t)
	s := openStore(t, filepath.Join(dir, "images"))
	reference, _ := h.push(
		t,
		"thing:1",
		map[string]string{"a": "1", "dir/b": "2"},
		map[string]string{"dir/.wh.b": "", "dir/c": "3"},
	)

	img := pull(t, s, reference)
	config := rootfs.Config{Dir: filepath.Join(dir, "rootfs"), StateDir: state, Images: s}
	m, err := rootfs.Open(config)
	if err != nil {
		t.Fatal(err)
	}

	var root string
	for range 2 {
		if root, err = m.Prepare(t.Context(), "c1", img, nil); err != nil {
			t.Fatal(err)
		}
	}

	if err := s.Remove(reference); err != nil {
		t.Fatal(err)
	}
	s.Close()

	// After a restart.
	s = openStore(t, filepath.Join(dir, "images"))
	config.Images = s
	if m, err = rootfs.Open(config); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(root + "/a"); err != nil || string(data) != "1" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Stat(root + "/dir/b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the removed file: %v", err)
	}
	if err := os.WriteFile(root+"/dir/new", []byte("written"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(m.Dirs("c1")[0] + "/dir/new"); err != nil {
		t.Errorf("what was written: %v", err)
	}

	for range 2 {
		if err := m.Release(t.Context(), "c1"); err != nil {
			t.Fatal(err)
		}
	}

	nothingLeft(t, filepath.Join(dir, "images"))
}

func TestManyLayersAndReadOnlyMounts(t *testing.T) {
	testenv.Root(t)
	h, dir, state := newHub(t), t.TempDir(), testenv.ShortDir(t)
	s := openStore(t, filepath.Join(dir, "images"))
	var files []map[string]string
	for i := range 150 {
		files = append(files, map[string]string{fmt.Sprint("f", i): fmt.Sprint(i)})
	}

	reference, _ := h.push(t, "deep:1", files...)
	img := pull(t, s, reference)
	m, err := rootfs.Open(rootfs.Config{Dir: filepath.Join(dir, "rootfs"), StateDir: state, Images: s})
	if err != nil {
		t.Fatal(err)
	}

	root, err := m.PrepareReadOnly(t.Context(), "v1", img, nil)
	if err != nil {
		t.Fatal(err)
	}
	if list, err := os.ReadDir(root); err != nil || len(list) != 150 {
		t.Errorf("%d files, %v", len(list), err)
	}
	if err := os.WriteFile(root+"/x", nil, 0o600); err == nil {
		t.Error("a read-only mount was written to")
	}
	if err := m.Release(t.Context(), "v1"); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Prepare(t.Context(), "../x", img, nil); err == nil {
		t.Error("a path was taken as an ID")
	}
}

// readFiles reads the files of these names below root.
func readFiles(t *testing.T, root string, names map[string]string) map[string]string {
	t.Helper()
	got := map[string]string{}
	for name := range names {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		}
		got[name] = string(data)
	}
	return got
}

// pushModel pushes an artifact with each kind of file that tools write.
func (h *hub) pushModel(t *testing.T) (reference, id string) {
	t.Helper()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write(pack(t, map[string]string{"in/archive": "3"}))
	w.Close()
	archive, packed := "application/vnd.oci.image.layer.v1.tar+gzip", titled("packed")
	packed["io.deis.oras.content.unpack"] = "true"
	return h.pushArtifact(t, "artifact:1",
		blob{"application/json", "{1}", titled("config/model.json")},
		// As oras pushes files.
		blob{"application/vnd.oci.image.layer.v1.tar", "no archive", titled("plain.txt")},
		blob{archive, zipped.String(), nil},
		blob{archive, zipped.String(), packed},
		blob{"application/x", "4", map[string]string{"org.cnai.model.filepath": "weights.bin"}},
		blob{"application/x", "5", titled("../../.wh.outside")},
	)
}

func TestArtifactIsAVolumeOfItsFiles(t *testing.T) {
	testenv.Root(t)
	h, dir := newHub(t), t.TempDir()
	reference, id := h.pushModel(t)
	other, otherID := h.pushArtifact(t, "artifact:2", blob{"application/x", "other", titled("plain.txt")})

	s := openStore(t, filepath.Join(dir, "images"))
	img := pull(t, s, reference)
	if !img.Artifact || img.ID != id || img.Size == 0 {
		t.Errorf("pulled %+v, want artifact %s", img, id)
	}

	// Both have the same, empty configuration.
	if second := pull(t, s, other); second.ID != otherID {
		t.Errorf("the other artifact is %s, want %s", second.ID, otherID)
	}

	s.Close()
	s = openStore(t, filepath.Join(dir, "images"))
	img, err := s.Get(reference)
	if err != nil || !img.Artifact {
		t.Fatalf("after a restart: %+v, %v", img, err)
	}

	config := rootfs.Config{Dir: filepath.Join(dir, "rootfs"), StateDir: testenv.ShortDir(t), Images: s}
	m, err := rootfs.Open(config)
	if err != nil {
		t.Fatal(err)
	}

	root, err := m.PrepareReadOnly(t.Context(), "v1", img, nil)
	if err != nil {
		t.Fatal(err)
	}

	want := map[string]string{
		"config/model.json": "{1}",
		"plain.txt":         "no archive",
		"in/archive":        "3",
		"weights.bin":       "4",
		".wh.outside":       "5",
	}

	if diff := cmp.Diff(want, readFiles(t, root, want)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := m.Release(t.Context(), "v1"); err != nil {
		t.Error(err)
	}
}

func TestFullDiskFailsThePullAndLeavesNothing(t *testing.T) {
	testenv.Root(t)
	h, dir := newHub(t), testenv.ShortDir(t)
	if err := mount.Tmpfs(dir, "size=8m"); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
	})

	s := openStore(t, dir)
	small, _ := h.push(t, "small:1", map[string]string{"a": "1"})
	pull(t, s, small)
	big, _ := h.push(t, "big:1", map[string]string{"b": strings.Repeat("0123456789abcdef", 1<<20)})
	_, err := s.Pull(t.Context(), big, registry.Auth{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), big) {
		t.Errorf("error %v, want one that names the image and says that there is no space", err)
	}
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}

	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		t.Fatal(err)
	}
	if used := int64(fs.Blocks-fs.Bfree) * fs.Bsize; used > 1<<20 {
		t.Errorf("%d bytes are still used after the pull failed", used)
	}
	if _, err := s.Get(small); err != nil {
		t.Errorf("the image that was there: %v", err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, "size=64m"); err != nil {
		t.Fatal(err)
	}

	pull(t, s, big)
}

func TestExportedImageIsTheSameElsewhere(t *testing.T) {
	testenv.Root(t)
	h := newHub(t)
	_, img := h.push(t, "unused:1", map[string]string{"a": "1", "d/gone": "2", "o/p": "3"})
	second := layered(t)
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(second)), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if img, err = mutate.AppendLayers(img, layer); err != nil {
		t.Fatal(err)
	}

	from, to := openStore(t, t.TempDir()), openStore(t, t.TempDir())
	saved := dockerArchive(t, map[string]v1.Image{"one:1": img})
	before, err := from.Import(t.Context(), bytes.NewReader(saved), image.ImportOptions{})
	if err != nil {
		t.Fatal(err)
	}

	var data bytes.Buffer
	if err := from.Export(t.Context(), []string{"one:1"}, &data); err != nil {
		t.Fatal(err)
	}

	after, err := to.Import(t.Context(), &data, image.ImportOptions{})
	if err != nil || len(after) != 1 {
		t.Fatalf("%d images, %v", len(after), err)
	}
	if diff := cmp.Diff(before[0].Tags, after[0].Tags); diff != "" {
		t.Errorf("tags (-before +after):\n%s", diff)
	}
	if diff := cmp.Diff(before[0].Config.Config, after[0].Config.Config); diff != "" {
		t.Errorf("configuration (-before +after):\n%s", diff)
	}

	if before[0].ID != after[0].ID {
		t.Errorf("the image's ID is %s, and was %s", after[0].ID, before[0].ID)
	}

	for i := range before[0].Layers {
		if diff := cmp.Diff(contents(t, before[0].Layers[i]), contents(t, after[0].Layers[i])); diff != "" {
			t.Errorf("layer %d (-before +after):\n%s", i, diff)
		}
	}

	if err := from.Export(t.Context(), []string{"absent:1"}, &data); !errors.Is(err, image.ErrNotFound) {
		t.Errorf("export of an absent image: %v", err)
	}
}

func TestImageWithoutTapesIsTheSameElsewhereUnderAnotherID(t *testing.T) {
	testenv.Root(t)
	h, from := newHub(t), openStore(t, t.TempDir())
	lower := map[string]string{"a": "1", "d/gone": "2"}
	_, img := h.push(t, "unused:1", lower, map[string]string{"d/.wh.gone": ""})
	before := importInto(t, from, dockerArchive(t, map[string]v1.Image{"one:1": img}))[0]
	for _, dir := range before.Layers {
		if err := os.Remove(filepath.Join(filepath.Dir(dir), "tape")); err != nil {
			t.Fatal(err)
		}
	}

	after := importInto(t, openStore(t, t.TempDir()), export(t, from, "one:1"))[0]
	if after.ID == before.ID {
		t.Error("layers that are packed in another way have the same digests")
	}
	for i := range before.Layers {
		if diff := cmp.Diff(contents(t, before.Layers[i]), contents(t, after.Layers[i])); diff != "" {
			t.Errorf("layer %d (-before +after):\n%s", i, diff)
		}
	}
}

func TestFullDiskFailsTheImportAndLeavesNothing(t *testing.T) {
	testenv.Root(t)
	h, dir := newHub(t), testenv.ShortDir(t)
	if err := mount.Tmpfs(dir, "size=8m"); err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() {
		if err := mount.Unmount(dir); err != nil {
			t.Error(err)
		}
	})

	// The archive alone fits: its layer beside it does not. The second is too large by itself.
	s := openStore(t, dir)
	for _, blocks := range []int{5 << 8, 16 << 8} {
		_, img := h.push(t, "unused:1", map[string]string{"b": noise(blocks << 12)})
		data := dockerArchive(t, map[string]v1.Image{"big:1": img})
		_, err := s.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{})
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("error %v, want one that says that there is no space", err)
		}
	}

	importInto(t, s, dockerArchive(t, map[string]v1.Image{"small:1": forPlatform(t, h, runtime.GOARCH, "x")}))
	if err := s.Remove("small:1"); err != nil {
		t.Error(err)
	}

	s.Close()
	nothingLeft(t, dir)
}

// noise is text of that many bytes which cannot be compressed.
func noise(size int) string {
	data := make([]byte, size)
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	return string(data)
}
