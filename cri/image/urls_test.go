package image_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trivet-node/trivet/cri/registry"
)

// A manifest may say that a layer is to be had at any URL, which once sent the registry's credentials there
// (CVE-2020-15157), and lets an author send a node's requests wherever he likes.
func TestURLsOfALayerAreNotAskedForIt(t *testing.T) {
	elsewhere := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		t.Errorf("%s was asked for", r.URL)
	}))
	defer elsewhere.Close()

	h, s := newHub(t), openStore(t, t.TempDir())

	_, img := h.push(t, "thing:1", map[string]string{"a": "1"})
	data := pack(t, map[string]string{"b": "2"})
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(data)), nil
	})
	if err != nil {
		t.Fatal(err)
	}

	img, err = mutate.Append(img, mutate.Addendum{
		Layer:       layer,
		URLs:        []string{elsewhere.URL + "/layer"},
		Annotations: map[string]string{"urls": elsewhere.URL},
		History:     v1.History{CreatedBy: "test"},
	})
	if err != nil {
		t.Fatal(err)
	}

	h.write(t, h.host+"/thing:2", img)
	digest, err := layer.Digest()
	if err != nil {
		t.Fatal(err)
	}

	hook := func(w http.ResponseWriter, r *http.Request) bool {
		gone := r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, digest.String())
		if gone {
			w.WriteHeader(http.StatusNotFound)
		}

		return gone
	}

	h.hook.Store(&hook)
	_, err = s.Pull(t.Context(), h.host+"/thing:2", registry.Auth{Username: "me", Password: "secret"})
	if err == nil || !strings.Contains(err.Error(), digest.Hex) {
		t.Errorf("error %v, want one that names the layer", err)
	}
}
