package image_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"log"
	"maps"
	"math/rand/v2"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	ggcr "github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/trivet-node/trivet/cri/image"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// BenchmarkPull pulls and removes; the sizes are those of the figures in docs/image-store.md.
func BenchmarkPull(b *testing.B) {
	random := make([]byte, 210<<20)
	rand.NewChaCha8([32]byte{1}).Read(random)
	b.Run("one layer of 210 MB",
		func(b *testing.B) { benchmarkPull(b, []map[string][]byte{{"big": random}}) })
	small := make(map[string][]byte)
	for i := range 11_000 {
		text := strings.Repeat(
			fmt.Sprintf("func name%d(argument int) error { return nil }\n", i*7919%10007),
			400,
		)

		small[fmt.Sprintf("src/d%03d/e%04d/f%05d.go",
			i/300, i/8, i)] = []byte(text[:4000+i%18000%len(text)%9000])
	}

	b.Run("11000 small files", func(b *testing.B) { benchmarkPull(b, []map[string][]byte{small}) })
	var twenty []map[string][]byte
	for i := range 20 {
		twenty = append(twenty, map[string][]byte{fmt.Sprint(i): random[i*5<<20 : (i+1)*5<<20]})
	}

	b.Run("20 layers of 5 MB", func(b *testing.B) { benchmarkPull(b, twenty) })
}

func benchmarkPull(b *testing.B, layers []map[string][]byte) {
	testenv.Root(b)
	server := httptest.NewServer(ggcr.New(ggcr.Logger(log.New(io.Discard, "", 0))))
	defer server.Close()

	reference := strings.TrimPrefix(server.URL, "http://") + "/bench:1"
	size := pushLayers(b, reference, layers)
	s, err := image.Open(image.Config{Dir: b.TempDir(), Registry: registry.NewClient(registry.Config{})})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()

	b.SetBytes(size)
	for b.Loop() {
		if _, err := s.Pull(b.Context(), reference, registry.Auth{}); err != nil {
			b.Fatal(err)
		}

		b.StopTimer()
		s.Close()
		if err := s.Remove(reference); err != nil {
			b.Fatal(err)
		}

		b.StartTimer()
	}
}

func pushLayers(b *testing.B, reference string, layers []map[string][]byte) (size int64) {
	img := empty.Image
	for _, files := range layers {
		var buf bytes.Buffer
		w := tar.NewWriter(&buf)
		for _, name := range slices.Sorted(maps.Keys(files)) {
			body := files[name]
			if err := w.WriteHeader(&tar.Header{
				Typeflag: tar.TypeReg,
				Name:     name,
				Size:     int64(len(body)),
				Mode:     0o644,
			}); err != nil {
				b.Fatal(err)
			}

			w.Write(body)
		}

		w.Close()
		data := buf.Bytes()
		size += int64(len(data))
		layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(data)), nil
		})
		if err != nil {
			b.Fatal(err)
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			b.Fatal(err)
		}
	}

	config, err := img.ConfigFile()
	if err != nil {
		b.Fatal(err)
	}

	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	if img, err = mutate.ConfigFile(img, config); err != nil {
		b.Fatal(err)
	}

	ref, err := name.ParseReference(reference)
	if err != nil {
		b.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		b.Fatal(err)
	}

	return size
}
