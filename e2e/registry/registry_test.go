package registry

import (
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func serve(t *testing.T) (server *httptest.Server, image v1.Image) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "layout")
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if image, err = random.Image(1000, 2); err != nil {
		t.Fatal(err)
	}

	err = path.AppendImage(
		image,
		layout.WithAnnotations(map[string]string{refName: "docker.io/library/thing:1"}),
	)
	if err != nil {
		t.Fatal(err)
	}

	server = httptest.NewServer(Handler{Dir: dir})
	t.Cleanup(server.Close)
	return server, image
}

func TestEachLayoutInTheDirectoryIsServedAlsoOneThatComesLater(t *testing.T) {
	dir := t.TempDir()
	server := httptest.NewServer(Handler{Dir: dir})
	t.Cleanup(server.Close)
	host := strings.TrimPrefix(server.URL, "http://")

	for _, set := range []string{"base", "more"} {
		image, err := random.Image(1000, 2)
		if err != nil {
			t.Fatal(err)
		}

		path, err := layout.Write(filepath.Join(dir, set), empty.Index)
		if err != nil {
			t.Fatal(err)
		}

		named := layout.WithAnnotations(map[string]string{refName: "docker.io/library/" + set + ":1"})
		if err := path.AppendImage(image, named); err != nil {
			t.Fatal(err)
		}

		ref, err := name.ParseReference(host + "/library/" + set + ":1")
		if err != nil {
			t.Fatal(err)
		}

		got, err := remote.Image(ref)
		if err != nil {
			t.Fatalf("%s: %v", set, err)
		}
		if err := validate.Image(got); err != nil {
			t.Errorf("%s: %v", set, err)
		}
	}
}

func TestAnImageIsPulledWholeByTagAndByDigest(t *testing.T) {
	server, image := serve(t)
	digest, err := image.Digest()
	if err != nil {
		t.Fatal(err)
	}

	host := strings.TrimPrefix(server.URL, "http://")
	for _, text := range []string{host + "/library/thing:1", host + "/library/thing@" + digest.String()} {
		ref, err := name.ParseReference(text)
		if err != nil {
			t.Fatal(err)
		}

		got, err := remote.Image(ref)
		if err != nil {
			t.Fatal(err)
		}
		if d, err := got.Digest(); err != nil || d != digest {
			t.Errorf("%s has digest %s (%v), want %s", text, d, err, digest)
		}

		layers, err := got.Layers()
		if err != nil {
			t.Fatal(err)
		}

		for _, l := range layers {
			r, err := l.Compressed()
			if err != nil {
				t.Fatal(err)
			}

			// The reader verifies the digest.
			if _, err := io.Copy(io.Discard, r); err != nil {
				t.Error(err)
			}

			r.Close()
		}
	}
}

func get(t *testing.T, url string, header ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(header) == 2 {
		req.Header.Set(header[0], header[1])
	}

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

func TestAPullCanBeResumed(t *testing.T) {
	server, image := serve(t)
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}

	digest, _ := layers[0].Digest()
	size, _ := layers[0].Size()
	resp := get(t, server.URL+"/v2/library/thing/blobs/"+digest.String(), "Range", "bytes=100-")
	rest, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusPartialContent || int64(len(rest)) != size-100 {
		t.Errorf("status %s, %d bytes, %v; want the last %d", resp.Status, len(rest), err, size-100)
	}
}

func TestOnlyTheRegistryThatIsAskedForAnswers(t *testing.T) {
	server, _ := serve(t)
	for ns, want := range map[string]int{
		"docker.io":       200,
		"":                200,
		"localhost:5001":  200,
		"localhost":       200,
		"registry.k8s.io": 404,
		"localhost.local": 404,
	} {
		resp := get(t, server.URL+"/v2/library/thing/manifests/1?ns="+ns)
		if resp.StatusCode != want {
			t.Errorf("ns %q: %s, want %d", ns, resp.Status, want)
		}
		if media := resp.Header.Get("Content-Type"); want == 200 &&
			media != string(types.DockerManifestSchema2) {
			t.Errorf("ns %q: media type %s", ns, media)
		}
	}
}

func TestBadRequestsAreRefused(t *testing.T) {
	server, _ := serve(t)
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	for path, want := range map[string]int{
		"/v2/library/nothing/manifests/1":                           404,
		"/v2/library/thing/blobs/sha256:../../etc":                  404,
		"/v2/library/thing/blobs/sha256:00":                         400,
		"/v2/library/thing/blobs/sha256:" + strings.Repeat("0", 64): 404,
		"/elsewhere":                    404,
		"/v2/":                          200,
		"/v2/library/thing/tags/list":   200,
		"/v2/library/nothing/tags/list": 404,
	} {
		if resp := get(t, server.URL+path); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}

	resp, err := http.Post(server.URL+"/v2/library/thing/blobs/uploads/", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusMethodNotAllowed {
		t.Errorf("a push gives %s", resp.Status)
	}
}
