package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/image"
)

// forPlatform makes an image of one file.
func forPlatform(t *testing.T, h *hub, architecture, body string) v1.Image {
	t.Helper()
	_, img := h.push(t, "unused:1", map[string]string{"f": body})
	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}

	config = config.DeepCopy()
	config.Architecture = architecture
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}

	return img
}

// dockerArchive is what docker save writes.
func dockerArchive(t *testing.T, images map[string]v1.Image) []byte {
	t.Helper()
	tagged := make(map[name.Tag]v1.Image)
	for text, img := range images {
		tag, err := name.NewTag(text)
		if err != nil {
			t.Fatal(err)
		}

		tagged[tag] = img
	}

	var b bytes.Buffer
	if err := tarball.MultiWrite(tagged, &b); err != nil {
		t.Fatal(err)
	}

	return b.Bytes()
}

// layoutArchive is an OCI layout of an index of two platforms, in a tar file.
func layoutArchive(
	t *testing.T, annotation, name string, images map[string]v1.Image,
) (data []byte, index v1.Hash) {
	t.Helper()
	inner := v1.ImageIndex(empty.Index)
	for architecture, img := range images {
		platform := v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: architecture}}
		inner = mutate.AppendManifests(inner, mutate.IndexAddendum{Add: img, Descriptor: platform})
	}

	index, err := inner.Digest()
	if err != nil {
		t.Fatal(err)
	}

	dir := t.TempDir()
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}

	named := layout.WithAnnotations(map[string]string{annotation: name})
	if err := path.AppendIndex(inner, named); err != nil {
		t.Fatal(err)
	}

	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.Bytes(), index
}

func zipped(data []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(data)
	w.Close()
	return b.Bytes()
}

func TestDockerArchiveIsImportedAndSafe(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	s := openStore(t, dir)
	one, two := forPlatform(t, h, runtime.GOARCH, "1"), forPlatform(t, h, runtime.GOARCH, "2")
	data := zipped(dockerArchive(t, map[string]v1.Image{"example.org/one:1": one, "two:2": two}))

	// Repeating it changes nothing.
	for range 2 {
		images, err := s.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{Pinned: true})
		if err != nil || len(images) != 2 {
			t.Fatalf("%d images, %v", len(images), err)
		}
	}

	for text, img := range map[string]v1.Image{"example.org/one:1": one, "docker.io/library/two:2": two} {
		id, err := img.ConfigName()
		if err != nil {
			t.Fatal(err)
		}

		got, err := s.Get(text)
		if err != nil || got.ID != id.String() || !got.Pinned || got.Reference(text) != got.ID {
			t.Errorf("%s: %+v, %v", text, got, err)
			continue
		}

		if body, err := os.ReadFile(got.Layers[0] + "/f"); err != nil || len(body) != 1 {
			t.Errorf("%s holds %q, %v", text, body, err)
		}

		record, err := os.ReadFile(filepath.Join(dir, "images", id.Hex+".json"))
		var safe struct{ Synced bool }
		if err != nil || json.Unmarshal(record, &safe) != nil || !safe.Synced {
			t.Errorf("%s is not safe on the disk: %v", text, err)
		}
	}

	if list, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(list) > 0 {
		t.Errorf("left in tmp: %v, %v", list, err)
	}
}

func TestLayoutArchiveGivesThisPlatformsImage(t *testing.T) {
	h := newHub(t)
	ours := forPlatform(t, h, runtime.GOARCH, "ours")
	images := map[string]v1.Image{"s390x": forPlatform(t, h, "s390x", "theirs"), runtime.GOARCH: ours}
	for annotation, text := range map[string]string{
		"io.containerd.image.name":          "docker.io/library/x:1",
		"org.opencontainers.image.ref.name": "x:1",
	} {
		s := openStore(t, t.TempDir())
		data, index := layoutArchive(t, annotation, text, images)
		got, err := s.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{})
		if err != nil || len(got) != 1 {
			t.Fatalf("%s: %d images, %v", annotation, len(got), err)
		}

		want := "docker.io/library/x@" + index.String()
		if got[0].Pinned || len(got[0].Tags) != 1 || got[0].Reference("x:1") != want {
			t.Errorf("%s: tags %v, digests %v, want %s", annotation, got[0].Tags, got[0].Digests, want)
		}
	}
}

func TestHostileArchivesLeaveNothing(t *testing.T) {
	h := newHub(t)
	good := dockerArchive(t, map[string]v1.Image{"one:1": forPlatform(t, h, runtime.GOARCH, "x")})
	config, err := forPlatform(t, h, runtime.GOARCH, "1").RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}

	mixed := pack(t, map[string]string{
		"manifest.json": `[{"Config":"c","RepoTags":["a:1"],"Layers":["l"]}]`,
		"c":             string(config),
		"l":             string(pack(t, map[string]string{"f": "2"})),
	})

	other := dockerArchive(t, map[string]v1.Image{"one:1": forPlatform(t, h, "s390x", "x")})
	zeros := strings.Repeat("0", 64)
	index := func(text string) []byte { return pack(t, map[string]string{"index.json": text}) }
	docker := func(text string) []byte {
		return pack(t, map[string]string{"manifest.json": text, "c": "{}", "../../outside": "evil"})
	}
	for what, data := range map[string][]byte{
		"nothing":        nil,
		"no tar":         bytes.Repeat([]byte("x"), 5000),
		"no index":       pack(t, map[string]string{"a": "b"}),
		"half":           good[:len(good)/2],
		"other platform": other,
		"absent blob":    index(`{"manifests":[{"digest":"sha256:` + strings.Repeat("a", 64) + `"}]}`),
		"blob of another name": pack(t, map[string]string{
			"index.json":            `{"manifests":[{"digest":"sha256:` + zeros + `"}]}`,
			"blobs/sha256/" + zeros: `{"schemaVersion":2}`,
		}),
		"digest of no kind":    index(`{"manifests":[{"digest":"../../x"}]}`),
		"index without images": index(`{"manifests":[]}`),
		"absent layer":         docker(`[{"Config":"c","RepoTags":["a:1"],"Layers":["../../etc/passwd"]}]`),
		"bad name":             docker(`[{"Config":"c","RepoTags":["A B"],"Layers":[]}]`),
		"another layer":        mixed,
		"large index":          index(strings.Repeat(" ", 9<<20)),
		"many images":          index(`{"manifests":[{}` + strings.Repeat(",{}", 2000) + `]}`),
		"many names":           docker(`[{"Config":"c","RepoTags":[""` + strings.Repeat(`,""`, 200) + `]}]`),
	} {
		t.Run(what, func(t *testing.T) {
			dir := t.TempDir()
			s := openStore(t, dir)
			images, err := s.Import(t.Context(), bytes.NewReader(data), image.ImportOptions{})
			if err == nil {
				t.Errorf("imported %v", images)
			}

			s.Close()
			nothingLeft(t, dir)
			if _, err := os.Stat(filepath.Join(dir, "outside")); err == nil {
				t.Error("a file was written outside")
			}
		})
	}
}

func TestLinksInAnArchiveAreFollowed(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	img := forPlatform(t, h, runtime.GOARCH, "1")
	config, err := img.RawConfigFile()
	if err != nil {
		t.Fatal(err)
	}

	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(header tar.Header, body []byte) {
		header.Size, header.Mode = int64(len(body)), 0o644
		if err := w.WriteHeader(&header); err != nil {
			t.Fatal(err)
		}

		w.Write(body)
	}

	add(tar.Header{Typeflag: tar.TypeReg, Name: "a/layer.tar"}, pack(t, map[string]string{"f": "1"}))
	add(tar.Header{Typeflag: tar.TypeSymlink, Name: "b/layer.tar", Linkname: "../a/layer.tar"}, nil)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "c.json"}, config)
	manifest := []byte(`[{"Config":"c.json","RepoTags":null,"Layers":["b/layer.tar"]}]`)
	add(tar.Header{Typeflag: tar.TypeReg, Name: "manifest.json"}, manifest)
	w.Close()
	images, err := s.Import(t.Context(), &b, image.ImportOptions{})
	if err != nil || len(images) != 1 || len(images[0].Tags) != 0 {
		t.Fatalf("%+v, %v", images, err)
	}
	if _, err := s.Get(images[0].ID); err != nil {
		t.Error(err)
	}
}

// contents describes all that a layer's directory holds.
func contents(t *testing.T, dir string) (list []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}

		links, body := st.Nlink, ""
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFREG:
			data, err := os.ReadFile(name)
			if err != nil {
				return err
			}

			body = string(data)

		case unix.S_IFLNK:
			if body, err = os.Readlink(name); err != nil {
				return err
			}

		case unix.S_IFDIR:
			// Some filesystems count links of directories. One without an entry has the time of its making.
			links = 0
			if time.Since(time.Unix(st.Mtim.Sec, 0)) < time.Hour {
				st.Mtim.Sec = 0
			}

		case unix.S_IFCHR:
			// The time of a whiteout is not kept.
			st.Mtim.Sec = 0
		}

		attribute := make([]byte, 100)
		opaque, _ := unix.Lgetxattr(name, "trusted.overlay.opaque", attribute)
		user, _ := unix.Lgetxattr(name, "user.note", attribute)
		list = append(list, fmt.Sprintf("%s %o %d:%d %d links %d %q time %d opaque %d note %d",
			strings.TrimPrefix(name, dir), st.Mode, st.Uid, st.Gid, links, st.Rdev, body, st.Mtim.Sec,
			opaque, user))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return list
}

// layered is a layer of every kind of file.
func layered(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	note := map[string]string{"SCHILY.xattr.user.note": "n"}
	for _, h := range []tar.Header{
		{Typeflag: tar.TypeDir, Name: "d/", Mode: 0o1750, Uid: 7, PAXRecords: note},
		{Typeflag: tar.TypeReg, Name: "d/f", Mode: 0o4755, Gid: 8, Size: 1, PAXRecords: note},
		{Typeflag: tar.TypeLink, Name: "d/hard", Linkname: "d/f"},
		{Typeflag: tar.TypeSymlink, Name: "d/soft", Linkname: "/nowhere"},
		{Typeflag: tar.TypeFifo, Name: "d/fifo", Mode: 0o600},
		{Typeflag: tar.TypeReg, Name: "d/.wh.gone"},
		{Typeflag: tar.TypeReg, Name: "o/.wh..wh..opq"},
		{Typeflag: tar.TypeReg, Name: strings.Repeat("long/", 60) + "name", Size: 1},
	} {
		h.ModTime = time.Unix(1234, 0)
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}

		w.Write([]byte("x")[:h.Size])
	}

	if err := w.Close(); err != nil {
		t.Fatal(err)
	}

	return b.Bytes()
}
