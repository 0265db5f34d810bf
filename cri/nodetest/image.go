package nodetest

import (
	"archive/tar"
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	cranereg "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trivet-node/trivet/internal/testenv"
)

// PushImage serves an image of the host's busybox from a registry on loopback, until the end of the test, and
// returns its name. change, which may be nil, changes its files below root and its configuration.
func PushImage(tb testing.TB, change func(root string, config *v1.Config)) string {
	tb.Helper()
	root := tb.TempDir()
	testenv.BusyboxRoot(tb, root)
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nweb:x:1002:1003::/home/web:/bin/sh\n",
		"group":  "root:x:0:\nextra:x:5000:web\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}

	config := v1.Config{Env: []string{"FROM_IMAGE=yes"}}
	if change != nil {
		change(root, &config)
	}

	server := httptest.NewServer(cranereg.New(cranereg.Logger(log.New(io.Discard, "", 0))))
	tb.Cleanup(server.Close)
	reference := strings.TrimPrefix(server.URL, "http://") + "/busybox:1"
	WriteImage(tb, reference, imageOf(tb, root, config))
	return reference
}

// WriteImage puts an image into a registry.
func WriteImage(tb testing.TB, reference string, img v1.Image) {
	tb.Helper()
	ref, err := name.ParseReference(reference)
	if err != nil {
		tb.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		tb.Fatal(err)
	}
}

// imageOf returns an image with the files below root in one layer.
func imageOf(tb testing.TB, root string, config v1.Config) v1.Image {
	tb.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}

	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(b.Bytes())), nil
	})
	if err != nil {
		tb.Fatal(err)
	}

	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		tb.Fatal(err)
	}

	file, err := img.ConfigFile()
	if err != nil {
		tb.Fatal(err)
	}

	file = file.DeepCopy()
	file.OS = "linux"
	file.Architecture = "amd64"
	file.Config = config
	if img, err = mutate.ConfigFile(img, file); err != nil {
		tb.Fatal(err)
	}

	return img
}
