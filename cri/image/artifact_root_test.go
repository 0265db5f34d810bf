package image_test

import (
	"bytes"
	"compress/gzip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/internal/testenv"
)

// blob is one of an artifact.
type blob struct {
	mediaType   string
	content     string
	annotations map[string]string
}

func (h *hub) pushArtifact(t *testing.T, repository string, blobs ...blob) (reference, id string) {
	t.Helper()
	img := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	img = mutate.ConfigMediaType(img, "application/vnd.oci.empty.v1+json")
	var err error
	for _, b := range blobs {
		kind := types.MediaType(b.mediaType)
		add := mutate.Addendum{Layer: static.NewLayer([]byte(b.content), kind), MediaType: kind}
		add.Annotations = b.annotations
		if img, err = mutate.Append(img, add); err != nil {
			t.Fatal(err)
		}
	}

	reference = h.host + "/" + repository
	h.write(t, reference, img)
	digest, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}

	return reference, digest.String()
}

func titled(name string) map[string]string {
	return map[string]string{"org.opencontainers.image.title": name}
}

func TestArtifactIsAVolumeOfItsFiles(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	var zipped bytes.Buffer
	w := gzip.NewWriter(&zipped)
	w.Write(pack(t, map[string]string{"in/archive": "3"}))
	w.Close()
	archive, packed := "application/vnd.oci.image.layer.v1.tar+gzip", titled("packed")
	packed["io.deis.oras.content.unpack"] = "true"
	reference, id := h.pushArtifact(t, "artifact:1",
		blob{"application/json", "{1}", titled("config/model.json")},
		// As oras pushes files.
		blob{"application/vnd.oci.image.layer.v1.tar", "no archive", titled("plain.txt")},
		blob{archive, zipped.String(), nil},
		blob{archive, zipped.String(), packed},
		blob{"application/x", "4", map[string]string{"org.cnai.model.filepath": "weights.bin"}},
		blob{"application/x", "5", titled("../../.wh.outside")},
	)

	other, otherID := h.pushArtifact(t, "artifact:2", blob{"application/x", "other", titled("plain.txt")})

	s := openStore(t, filepath.Join(dir, "images"))
	img := pull(t, s, reference)
	if !img.Artifact || img.ID != id || img.Size == 0 {
		t.Errorf("pulled %+v, want artifact %s", img, id)
	}

	// both have the same, empty configuration
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

	root, err := m.PrepareReadOnly(t.Context(), "v1", img)
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

	got := map[string]string{}
	for name := range want {
		data, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Error(err)
		}

		got[name] = string(data)
	}

	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := m.Release(t.Context(), "v1"); err != nil {
		t.Error(err)
	}
}

func TestArtifactCannotTakeThePlaceOfTheRoot(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	reference, _ := h.pushArtifact(t, "artifact:1", blob{"application/x", "x", titled("/..")})
	_, err := s.Pull(t.Context(), reference, registry.Auth{})
	if err == nil || !strings.Contains(err.Error(), "root") {
		t.Errorf("error %v, want one about a file in the place of the root", err)
	}
}

func TestImageWithoutLayersHasASize(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	reference, _ := h.push(t, "empty:1")
	if img := pull(t, s, reference); img.Size < 10 || len(img.Chain) != 0 {
		t.Errorf("size %d, %d layers", img.Size, len(img.Chain))
	}
}
