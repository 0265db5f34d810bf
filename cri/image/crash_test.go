package image_test

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
)

// TestHelperPull is no test: it is the process that TestKilledPullLeavesNothing kills.
func TestHelperPull(t *testing.T) {
	dir, reference := os.Getenv("TRIVET_PULL_DIR"), os.Getenv("TRIVET_PULL_REFERENCE")
	if dir == "" {
		t.Skip("only for TestKilledPullLeavesNothing")
	}
	s, err := image.Open(image.Config{Dir: dir, Registry: registry.NewClient(registry.Config{})})
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Pull(t.Context(), reference, registry.Auth{})
	t.Fatalf("the pull ended: %v", err)
}

func TestKilledPullLeavesNothing(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	big := strings.Repeat("0123456789abcdef", 1<<18)
	reference, _ := h.push(
		t,
		"thing:1",
		map[string]string{"a": "1"},
		map[string]string{"b": big},
		map[string]string{"c": big},
	)

	// Killed before the configuration is there, with none of the layers, and with one.
	for blobs := range 3 {
		killPull(t, h, dir, reference, blobs)
		s := openStore(t, dir)
		if err := s.Collect(); err != nil {
			t.Fatal(err)
		}

		nothingLeft(t, dir)
	}

	h.hook.Store(nil)
	pull(t, openStore(t, dir), reference)
}

// killPull kills a process that pulls when it has got that many blobs and asks for the next.
func killPull(t *testing.T, h *hub, dir, reference string, blobs int) {
	t.Helper()
	reached := h.stopAfter(blobs)
	c := exec.Command("/proc/self/exe", "-test.run=^TestHelperPull$", "-test.v")
	c.Env = append(os.Environ(), "TRIVET_PULL_DIR="+dir, "TRIVET_PULL_REFERENCE="+reference)
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}

	ended := make(chan string, 1)
	go func() {
		text, _ := io.ReadAll(out)
		ended <- string(text)
	}()

	select {
	case <-reached:
	case text := <-ended:
		t.Fatalf("the pull ended early:\n%s", text)
	}

	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	<-ended
	c.Wait()
}

// stopAfter serves that many blobs and never answers requests for more. The channel is closed at the first of
// these.
func (h *hub) stopAfter(blobs int) (reached chan struct{}) {
	reached = make(chan struct{})
	var seen atomic.Int64
	hook := func(_ http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}

		n := int(seen.Add(1))
		if n <= blobs {
			return false
		}
		if n == blobs+1 {
			close(reached)
		}

		<-r.Context().Done()
		return true
	}

	h.hook.Store(&hook)
	return reached
}

// stopping calls stop when left bytes are through, and gives no more.
type stopping struct {
	http.ResponseWriter
	left int
	stop func()
}

func (s *stopping) Write(p []byte) (int, error) {
	if s.left -= len(p); s.left > 0 {
		return s.ResponseWriter.Write(p)
	}
	s.ResponseWriter.(http.Flusher).Flush()
	s.stop()
	panic(http.ErrAbortHandler)
}

func TestCancelledPullLeavesNothing(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	s := openStore(t, dir)
	random := make([]byte, 3<<20)
	rand.NewChaCha8([32]byte{}).Read(random)
	reference, _ := h.push(
		t,
		"thing:1",
		map[string]string{"small": "1"},
		map[string]string{"big": string(random)},
	)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	// The big layer stops halfway.
	hook := func(w http.ResponseWriter, r *http.Request) bool {
		h.inner.ServeHTTP(&stopping{ResponseWriter: w, left: 2 << 20, stop: func() {
			if list, err := os.ReadDir(filepath.Join(dir, "tmp")); err != nil || len(list) == 0 {
				t.Errorf("nothing is being unpacked: %v, %v", list, err)
			}

			cancel()
			<-r.Context().Done()
		}}, r)

		return true
	}

	h.hook.Store(&hook)
	if _, err := s.Pull(ctx, reference, registry.Auth{}); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}

	// The cancelled work ends.
	s.Close()
	nothingLeft(t, dir)
	h.hook.Store(nil)

	// And it works the next time.
	pull(t, s, reference)
}

// A power loss takes the end of files and the last renames; here it takes a layer and, in another image, the
// proof that it was synced.
func TestTornStateIsForgottenNotServed(t *testing.T) {
	h, dir := newHub(t), t.TempDir()
	s := openStore(t, dir)
	one, _ := h.push(t, "one:1", map[string]string{"one": "1"})
	two, _ := h.push(t, "two:1", map[string]string{"two": "2"})
	three, _ := h.push(t, "three:1", map[string]string{"three": "3"})
	first, second, third := pull(t, s, one), pull(t, s, two), pull(t, s, three)
	s.Close()
	if err := os.Truncate(filepath.Join(filepath.Dir(first.Layers[0]), "layer.json"), 3); err != nil {
		t.Fatal(err)
	}

	torn := filepath.Join(dir, "images", second.ID[7:]+".json")
	if err := os.WriteFile(torn, []byte(`{"ID":`), 0o600); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, dir)
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	if list := s.List(); len(list) != 1 || list[0].ID != third.ID {
		t.Errorf("images: %v", list)
	}

	for _, reference := range []string{one, two} {
		pull(t, s, reference)
	}
}
