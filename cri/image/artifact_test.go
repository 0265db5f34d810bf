package image_test

import (
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trivet-node/trivet/cri/registry"
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
