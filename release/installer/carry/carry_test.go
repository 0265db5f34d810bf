package carry

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/testenv"
	"github.com/trivet-node/trivet/release/installer/pods"
)

// images is a runtime's image service, with the full names of what it has.
type images struct {
	cri.UnimplementedImageServiceServer
	names map[string]string
}

func (i images) ImageStatus(
	_ context.Context, r *cri.ImageStatusRequest,
) (*cri.ImageStatusResponse, error) {
	full, ok := i.names[r.Image.Image]
	if !ok {
		return &cri.ImageStatusResponse{}, nil
	}

	image := &cri.Image{Id: "sha256:1"}
	if full != "" {
		image.RepoTags = []string{full}
	}
	return &cri.ImageStatusResponse{Image: image}, nil
}

func serve(t *testing.T, path string, names map[string]string) pods.Runtime {
	t.Helper()
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	s := grpc.NewServer()
	cri.RegisterImageServiceServer(s, images{names: names})
	go s.Serve(listener)
	t.Cleanup(s.Stop)
	return pods.Runtime{Endpoint: "unix://" + path}
}

// script writes a program of a shell.
func script(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestWhatOnlyTheOtherRuntimeHasIsBrought(t *testing.T) {
	root := testenv.ShortDir(t)
	c := Carrier{
		From: serve(t, root+"/theirs.sock", map[string]string{
			"app:1":      "docker.io/library/app:1",
			"both:1":     "docker.io/library/both:1",
			"broken:1":   "docker.io/library/broken:1",
			"last:1":     "docker.io/library/last:1",
			"x@sha256:1": "",
		}),
		To:      serve(t, root+"/ours.sock", map[string]string{"both:1": "docker.io/library/both:1"}),
		Ours:    "unix://" + root + "/ours.sock",
		Program: root + "/trivet-cri",
		Root:    root,
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}

	// One image cannot be exported: its layers are not there any more.
	script(t, root+"/usr/bin/ctr", `case "$*" in *broken*) echo 'content not found' >&2; exit 1;; esac
echo "$*"`)
	script(t, c.Program, `cat >>`+root+`/imported; echo "$*" >>`+root+`/imported`)
	c.Bring(t.Context(), []string{"app:1", "both:1", "nowhere:1", "broken:1", "x@sha256:1", "last:1"})

	got, err := os.ReadFile(root + "/imported")
	if err != nil {
		t.Fatal(err)
	}
	export := "--address=" + root + "/theirs.sock --namespace=k8s.io images export - docker.io/library/"
	want := export + "app:1\nimages import\nimages import\n" + export + "last:1\nimages import\n"
	if string(got) != want {
		t.Errorf("imported\n%swant\n%s", got, want)
	}
}

func TestRuntimeWithoutAProgramForArchivesIsLeftToPull(t *testing.T) {
	c := Carrier{Ours: "unix:///ours", Root: t.TempDir()}
	_, err := c.command(t.Context(), pods.Runtime{Endpoint: "unix:///crio"}, "export", "app:1")
	if err == nil || !strings.Contains(err.Error(), "no ctr") {
		t.Errorf("error %v", err)
	}
}
