package server_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/cri/server"
	"github.com/trivet-node/trivet/internal/testenv"
)

// store returns an image store, which pulls through the mirrors in TRIVET_TEST_HOSTS, and root file systems.
func store(t *testing.T) (*image.Store, *rootfs.Store) {
	t.Helper()
	dir := testenv.ShortDir(t)
	hosts := os.Getenv("TRIVET_TEST_HOSTS")
	images, err := image.Open(image.Config{
		Dir:      filepath.Join(dir, "images"),
		Registry: registry.NewClient(registry.Config{HostsDir: hosts}),
	})
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(images.Close)
	roots, err := rootfs.Open(rootfs.Config{
		Dir:      filepath.Join(dir, "rootfs"),
		StateDir: filepath.Join(dir, "state"),
		Images:   images,
	})
	if err != nil {
		t.Fatal(err)
	}

	return images, roots
}

// TestRealImages pulls and mounts every image that TRIVET_TEST_IMAGES names (separated by spaces).
func TestRealImages(t *testing.T) {
	names := strings.Fields(os.Getenv("TRIVET_TEST_IMAGES"))
	if len(names) == 0 {
		t.Skip("TRIVET_TEST_IMAGES names no image")
	}

	testenv.Root(t)
	images, roots := store(t)
	client := runtimeapi.NewImageServiceClient(serve(t, server.Config{Images: images}))
	for i, name := range names {
		spec := &runtimeapi.ImageSpec{Image: name}
		pulled, err := client.PullImage(t.Context(), &runtimeapi.PullImageRequest{Image: spec})
		if err != nil {
			t.Error(err)
			continue
		}

		r, err := client.ImageStatus(t.Context(), &runtimeapi.ImageStatusRequest{Image: spec, Verbose: true})
		if err != nil || r.Image.GetId() != pulled.ImageRef {
			t.Errorf("%s: %v, %v", name, r, err)
			continue
		}

		t.Log(r.Image)

		img, err := images.Get(pulled.ImageRef)
		if err != nil {
			t.Fatal(err)
		}

		id := "c" + string(rune('a'+i))
		path, err := roots.Prepare(t.Context(), id, img, nil)
		if err != nil {
			t.Fatal(err)
		}

		list, err := os.ReadDir(path)
		t.Log(list, err)
		if err := roots.Release(t.Context(), id); err != nil {
			t.Error(err)
		}
	}
}
