package image_test

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
)

// hub is a registry on loopback whose requests can be watched and held up.
type hub struct {
	host  string
	inner http.Handler

	// blobs counts the requests of blobs.
	blobs atomic.Int64
	// hook sees each request first, and returns true if it has given the answer.
	hook atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]
}

func newHub(t *testing.T) *hub {
	h := &hub{}
	h.inner = ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0)))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			h.blobs.Add(1)
		}
		if hook := h.hook.Load(); hook != nil && (*hook)(w, r) {
			return
		}

		h.inner.ServeHTTP(w, r)
	}))

	t.Cleanup(server.Close)
	h.host = strings.TrimPrefix(server.URL, "http://")
	return h
}

func (h *hub) push(
	t *testing.T,
	repository string,
	files ...map[string]string,
) (reference string, img v1.Image) {
	t.Helper()
	img = empty.Image
	for _, f := range files {
		data := pack(t, f)
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			t.Fatal(err)
		}
	}

	config, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}

	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config.User = "linux", runtime.GOARCH, "1003:1004"
	if img, err = mutate.ConfigFile(img, config); err != nil {
		t.Fatal(err)
	}

	reference = h.host + "/" + repository
	h.write(t, reference, img)
	return reference, img
}

func (h *hub) write(t *testing.T, reference string, img v1.Image) {
	t.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
}

func pack(t *testing.T, files map[string]string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Name:     name,
			Size:     int64(len(body)),
			Mode:     0o644,
			Uid:      os.Getuid(),
			Gid:      os.Getgid(),
		}); err != nil {
			t.Error(err)
		}

		if _, err := w.Write([]byte(body)); err != nil {
			t.Error(err)
		}
	}

	if err := w.Close(); err != nil {
		t.Error(err)
	}

	return b.Bytes()
}

func openStore(t *testing.T, dir string) *image.Store {
	t.Helper()
	s, err := image.Open(image.Config{Dir: dir, Registry: registry.NewClient(registry.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func pull(t *testing.T, s *image.Store, reference string) image.Image {
	t.Helper()
	img, err := s.Pull(t.Context(), reference, registry.Auth{})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func nothingLeft(t *testing.T, dir string) {
	t.Helper()
	for _, d := range []string{"layers", "tmp", "images"} {
		if list, err := os.ReadDir(filepath.Join(dir, d)); err != nil || len(list) > 0 {
			t.Errorf("left in %s: %v, %v", d, list, err)
		}
	}
}

func TestPulledImageIsFoundByEveryNameAndAfterRestart(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	s := openStore(t, dir)
	reference, pushed := h.push(t, "some/thing:1", map[string]string{"a": "1"}, map[string]string{"b": "2"})
	img := pull(t, s, reference)
	if id, err := pushed.ConfigName(); err != nil || id.String() != img.ID {
		t.Errorf("ID %s, want %s (%v)", img.ID, id, err)
	}

	digest, err := pushed.Digest()
	if err != nil {
		t.Fatal(err)
	}

	byDigest := h.host + "/some/thing@" + digest.String()
	s.Close()
	for range 2 {
		for _, name := range []string{img.ID, img.ID[7:], img.ID[7:20], reference, byDigest} {
			got, err := s.Get(name)
			if err != nil || got.ID != img.ID || len(got.Layers) != 2 || len(got.Tags) != 1 ||
				got.Config.Config.User != "1003:1004" {
				t.Errorf("%s: %+v, %v", name, got, err)
			}
		}

		s = openStore(t, dir)
	}

	before := h.blobs.Load()
	pull(t, s, reference)
	if after := h.blobs.Load(); after != before {
		t.Errorf("%d blobs were fetched for an image that is here", after-before)
	}

	for range 2 {
		if err := s.Remove(reference); err != nil {
			t.Fatal(err)
		}
	}

	nothingLeft(t, dir)
}

func TestTagsMoveAndDigestPullsHaveNoTag(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	reference, first := h.push(t, "thing:1", map[string]string{"a": "1"})
	digest, err := first.Digest()
	if err != nil {
		t.Fatal(err)
	}

	byDigest := h.host + "/thing@" + digest.String()
	img := pull(t, s, byDigest)
	if len(img.Tags) != 0 || len(img.Digests) != 1 || img.Digests[0] != byDigest {
		t.Errorf("tags %v digests %v", img.Tags, img.Digests)
	}

	pull(t, s, reference)
	h.push(t, "thing:1", map[string]string{"a": "2"})
	second := pull(t, s, reference)
	if old, err := s.Get(img.ID); err != nil || len(old.Tags) != 0 || second.ID == img.ID {
		t.Errorf("old image has tags %v, %v", old.Tags, err)
	}
}

func TestPinnedImagesAreMarked(t *testing.T) {
	h := newHub(t)
	kept, _ := h.push(t, "kept", map[string]string{"a": "1"})
	other, _ := h.push(t, "other", map[string]string{"a": "2"})
	s, err := image.Open(image.Config{
		Dir:      t.TempDir(),
		Registry: registry.NewClient(registry.Config{}),
		Pinned:   []string{kept},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()

	if a, b := pull(t, s, kept), pull(t, s, other); !a.Pinned || b.Pinned {
		t.Errorf("pinned: %t and %t, want true and false", a.Pinned, b.Pinned)
	}

	if _, err := image.Open(image.Config{
		Dir:    t.TempDir(),
		Pinned: []string{"no/Name"},
	}); err == nil || !strings.Contains(err.Error(), "no/Name") {
		t.Errorf("error %v does not name what is no image", err)
	}
}

func TestPullsAtOnceShareTheWork(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	shared := map[string]string{"shared": strings.Repeat("x", 1<<20)}
	one, _ := h.push(t, "one:1", shared, map[string]string{"one": "1"})
	two, _ := h.push(t, "two:1", shared, map[string]string{"two": "2"})
	gate := make(chan struct{})
	hook := func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/") {
			<-gate
		}

		return false
	}

	h.hook.Store(&hook)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := s.Pull(t.Context(), []string{one, two}[i%2], registry.Auth{}); err != nil {
				t.Error(err)
			}
		})
	}

	close(gate)
	wg.Wait()

	// 2 configurations, 1 shared layer, 2 own
	if n := h.blobs.Load(); n != 5 {
		t.Errorf("%d blobs were fetched, want 5", n)
	}
}

// breaking is a connection that breaks after some bytes.
type breaking struct {
	http.ResponseWriter
	left int
}

func (b *breaking) Write(p []byte) (int, error) {
	if len(p) > b.left {
		b.ResponseWriter.Write(p[:b.left])
		panic(http.ErrAbortHandler)
	}
	b.left -= len(p)
	return b.ResponseWriter.Write(p)
}

func TestBrokenTransferGoesOnWhereItStopped(t *testing.T) {
	h, s := newHub(t), openStore(t, t.TempDir())
	random := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	reference, _ := h.push(t, "thing:1", map[string]string{"a": string(random)})
	var breaks atomic.Int64
	hook := func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodGet || !strings.Contains(r.URL.Path, "/blobs/") || breaks.Add(1) > 12 {
			return false
		}

		h.inner.ServeHTTP(&breaking{ResponseWriter: w, left: 300_000}, r)
		return true
	}

	h.hook.Store(&hook)
	img, err := s.Pull(t.Context(), reference, registry.Auth{})
	if err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(img.Layers[0] + "/a"); err != nil || !bytes.Equal(data, random) {
		t.Errorf("content differs (%d bytes, %v)", len(data), err)
	}
}
