package ociimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// sample is an index of two platforms, whose images have one layer in common.
func sample(t *testing.T) v1.ImageIndex {
	t.Helper()
	common, err := Layer([]tarfile.File{{Path: "etc/x", Mode: 0o644, Data: []byte("x")}})
	if err != nil {
		t.Fatal(err)
	}

	var images []v1.Image
	for _, arch := range []string{"amd64", "arm64"} {
		own, err := Layer([]tarfile.File{{Path: "bin/x", Mode: 0o755, Data: []byte(arch)}})
		if err != nil {
			t.Fatal(err)
		}

		image, err := New(v1.ConfigFile{
			OS:           "linux",
			Architecture: arch,
			Created:      v1.Time{Time: time.Unix(1_700_000_000, 0).UTC()},
			Config:       v1.Config{Entrypoint: []string{"/bin/x"}},
		}, common, own)
		if err != nil {
			t.Fatal(err)
		}

		images = append(images, image)
	}

	index, err := Index(images...)
	if err != nil {
		t.Fatal(err)
	}
	return index
}

func archiveOf(t *testing.T, index v1.ImageIndex) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := WriteArchive(&out, index, "docker.io/library/x", "v1"); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// unpack writes the files of an archive into a directory, and counts its entries.
func unpack(t *testing.T, archive []byte) (dir string, entries int) {
	t.Helper()
	dir = t.TempDir()
	for r := tar.NewReader(bytes.NewReader(archive)); ; entries++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir, entries
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag == tar.TypeDir {
			continue
		}

		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}

		path := filepath.Join(dir, h.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestAnArchiveIsALayoutWithOneNamedImage(t *testing.T) {
	dir, entries := unpack(t, archiveOf(t, sample(t)))

	// Two files, two directories, an index, two manifests, two configurations, and three layers.
	if entries != 12 {
		t.Errorf("%d entries, want 12: a layer that two images share is there once", entries)
	}

	top, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(top); err != nil {
		t.Error(err)
	}

	list, err := top.IndexManifest()
	if err != nil || len(list.Manifests) != 1 {
		t.Fatalf("images %+v, %v", list, err)
	}

	names := list.Manifests[0].Annotations
	if names[FullName] != "docker.io/library/x:v1" || names[RefName] != "v1" {
		t.Errorf("names %q", names)
	}

	image, err := top.ImageIndex(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}

	platforms, err := image.IndexManifest()
	if err != nil || len(platforms.Manifests) != 2 ||
		platforms.Manifests[1].Platform.String() != "linux/arm64" {
		t.Errorf("platforms %+v, %v", platforms, err)
	}
}

func TestEqualImagesMakeAnEqualArchive(t *testing.T) {
	if !bytes.Equal(archiveOf(t, sample(t)), archiveOf(t, sample(t))) {
		t.Error("two archives of equal images differ")
	}
}
