package imageserver_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/imageserver"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/cri/rootfs"
	"github.com/trivet-node/trivet/internal/testenv"
)

func serve(t *testing.T, hosts string) (runtime.ImageServiceClient, *rootfs.Manager, *image.Store) {
	t.Helper()
	testenv.Root(t)
	dir := testenv.ShortDir(t)
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

	listener, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}

	server := grpc.NewServer()
	runtime.RegisterImageServiceServer(server, imageserver.New(images, roots))
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	conn, err := grpc.NewClient(
		"unix://"+filepath.Join(dir, "s"),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
	)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { conn.Close() })
	return runtime.NewImageServiceClient(conn), roots, images
}

func TestAbsentImages(t *testing.T) {
	client, _, _ := serve(t, "")
	spec := &runtime.ImageSpec{Image: "localhost:1/absent:1"}
	if r, err := client.ImageStatus(t.Context(), &runtime.ImageStatusRequest{
		Image: spec,
	}); err != nil || r.Image != nil {
		t.Errorf("status: %v, %v", r, err)
	}

	if _, err := client.RemoveImage(t.Context(), &runtime.RemoveImageRequest{Image: spec}); err != nil {
		t.Error(err)
	}

	if _, err := client.PullImage(t.Context(), &runtime.PullImageRequest{
		Image: spec,
	}); err == nil || !strings.Contains(err.Error(), "localhost:1") {
		t.Errorf("the error names no host: %v", err)
	}

	if _, err := client.ImageStatus(t.Context(), &runtime.ImageStatusRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no name: %v", err)
	}

	if r, err := client.ImageFsInfo(t.Context(), &runtime.ImageFsInfoRequest{}); err != nil ||
		len(r.ImageFilesystems) != 1 || len(r.ContainerFilesystems) != 1 {
		t.Errorf("file systems: %v, %v", r, err)
	}
}

// TestRealImages pulls every image that TRIVET_TEST_IMAGES names (separated by spaces) through the mirrors in
// TRIVET_TEST_HOSTS.
func TestRealImages(t *testing.T) {
	names := strings.Fields(os.Getenv("TRIVET_TEST_IMAGES"))
	if len(names) == 0 {
		t.Skip("TRIVET_TEST_IMAGES names no image")
	}

	client, roots, images := serve(t, os.Getenv("TRIVET_TEST_HOSTS"))
	for i, name := range names {
		pulled, err := client.PullImage(
			t.Context(),
			&runtime.PullImageRequest{Image: &runtime.ImageSpec{Image: name}},
		)
		if err != nil {
			t.Error(err)
			continue
		}

		r, err := client.ImageStatus(
			t.Context(),
			&runtime.ImageStatusRequest{Image: &runtime.ImageSpec{Image: name}, Verbose: true},
		)
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
		path, err := roots.Prepare(context.Background(), id, img)
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
