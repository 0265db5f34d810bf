package image_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/trivet-node/trivet/cri/image"
)

func export(t *testing.T, s *image.Store, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := s.Export(t.Context(), names, &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestExportIsTheSameEachTime(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	_, img := h.push(t, "unused:1", map[string]string{"a": "1", "d/b": "2"}, map[string]string{"d/.wh.b": ""})
	importInto(t, s, dockerArchive(t, map[string]v1.Image{"one:1": img, "two:2": img}))
	first := export(t, s, "one:1", "two:2")
	if again := export(t, s, "one:1", "two:2"); !bytes.Equal(first, again) {
		t.Error("a second export differs")
	}

	// What was exported has digests of its own, which stay.
	other := openStore(t, t.TempDir())
	there := importInto(t, other, first)
	if again := export(t, other, "two:2", "one:1"); !bytes.Equal(first, again) {
		t.Error("the export of what was exported differs")
	}
	if len(there) != 1 || len(there[0].Tags) != 2 || len(there[0].Digests) != 2 {
		t.Errorf("imported %+v", there)
	}
}

// Docker and podman read manifest.json, others the OCI layout; this is a reader of both that is not ours.
func TestExportIsReadInBothForms(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	_, img := h.push(t, "unused:1", map[string]string{"a": "1"}, map[string]string{"b": "2"})
	id := importInto(t, s, dockerArchive(t, map[string]v1.Image{"one:1": img}))[0].ID
	data := export(t, s, "one:1")

	tag, err := name.NewTag("docker.io/library/one:1")
	if err != nil {
		t.Fatal(err)
	}
	docker, err := tarball.Image(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	}, &tag)
	if err != nil {
		t.Fatal(err)
	}

	index, err := layout.ImageIndexFromPath(extract(t, data))
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("index %+v, %v", list, err)
	}

	entry := list.Manifests[0]
	tagged := entry.Annotations["org.opencontainers.image.ref.name"] == "1"
	if entry.Platform.Architecture != runtime.GOARCH || !tagged {
		t.Errorf("entry %+v", entry)
	}

	oci, err := index.Image(entry.Digest)
	if err != nil {
		t.Fatal(err)
	}

	// This reader takes it that layers of the OCI layout are compressed: it can check the others only.
	if err := errors.Join(validate.Image(docker), validate.Image(oci, validate.Fast)); err != nil {
		t.Error(err)
	}
	for form, img := range map[string]v1.Image{"docker": docker, "OCI": oci} {
		if got, err := img.ConfigName(); err != nil || got.String() != id {
			t.Errorf("%s: the image is %s, %v; want %s", form, got, err, id)
		}
	}
}

// extract writes the files of an archive into a directory.
func extract(t *testing.T, data []byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	from := tar.NewReader(bytes.NewReader(data))
	for {
		header, err := from.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}

		content, err := io.ReadAll(from)
		if err != nil {
			t.Fatal(err)
		}

		file := filepath.Join(dir, header.Name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestExportHasTheNamesThatWereAskedFor(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	img := forPlatform(t, h, runtime.GOARCH, "x")
	id := importInto(t, s, dockerArchive(t, map[string]v1.Image{"one:1": img, "two:2": img}))[0].ID

	for name, want := range map[string]string{
		"one:1": "docker.io/library/one:1",
		id:      "docker.io/library/one:1 docker.io/library/two:2",
	} {
		there := importInto(t, openStore(t, t.TempDir()), export(t, s, name))
		if len(there) != 1 || strings.Join(there[0].Tags, " ") != want {
			t.Errorf("export of %s has %v, want %s", name, there, want)
		}
	}
}
