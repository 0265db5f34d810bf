package image_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/trivet-node/trivet/cri/registry"
)

func TestRepositoryThatHasNotTheConfigurationDoesNotGetTheImage(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	reference, img := h.push(t, "private:1", map[string]string{"secret": "1"})
	manifest, err := img.RawManifest()
	if err != nil {
		t.Fatal(err)
	}

	hasConfig := false
	hook := func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasPrefix(r.URL.Path, "/v2/other/manifests/"):
			w.Write(manifest)
			return true
		case strings.HasPrefix(r.URL.Path, "/v2/other/blobs/") && !hasConfig:
			http.NotFound(w, r)
			return true
		}

		return false
	}

	h.hook.Store(&hook)
	private := pull(t, s, reference)

	got, err := s.Pull(t.Context(), h.host+"/other:1", registry.Auth{})
	if !errors.Is(err, registry.ErrNotFound) {
		t.Errorf("pulled %+v, %v", got, err)
	}
	if img, err := s.Get(private.ID); err != nil || len(img.Tags) != 1 || len(img.Digests) != 1 {
		t.Errorf("the image is now %+v, %v", img, err)
	}

	hasConfig = true
	before := h.blobs.Load()
	pull(t, s, h.host+"/other:1")
	pull(t, s, h.host+"/other:2")

	// The configuration, once.
	if n := h.blobs.Load() - before; n != 1 {
		t.Errorf("%d blobs were fetched, want 1", n)
	}
}
