package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trivet-node/trivet/e2e/images"
)

// file of a layer; its content is text, or random bytes that no compressor makes smaller.
type file struct {
	name string
	data []byte
}

// benchImage is an image to pull, a list of files for each layer.
type benchImage struct {
	name, about string
	layers      [][]file
}

// catalog makes the same images every time.
func catalog() []benchImage {
	noise := rand.NewChaCha8([32]byte{1})
	random := func(name string, size int) []file {
		data := make([]byte, size)
		// It does not fail.
		_, _ = noise.Read(data)
		return []file{{name, data}}
	}

	var twenty [][]file
	for i := range 20 {
		twenty = append(twenty, random(fmt.Sprintf("part%d", i), 5<<20))
	}

	return []benchImage{
		{"big", "one layer of 210 MB", [][]file{random("big", 210<<20)}},
		{"layers", "20 layers of 5 MB", twenty},
		{"small", "11,000 files in 1,400 directories, 95 MB", [][]file{smallFiles()}},
	}
}

// smallFiles are like the sources of a program.
func smallFiles() (files []file) {
	for i := range 11_000 {
		line := fmt.Sprintf("func name%d(argument int) error { return nil }\n", i*7919%10007)
		text := strings.Repeat(line, 300)
		files = append(files, file{
			name: fmt.Sprintf("src/d%03d/e%04d/f%05d.go", i/300, i/8, i),
			data: []byte(text[:4000+i*7919%9000]),
		})
	}
	return files
}

// writeImages makes an OCI layout in which the images have names in the registry.
func writeImages(dir, registry string, list []benchImage) error {
	index, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}

	for _, i := range list {
		image, err := i.build()
		if err != nil {
			return fmt.Errorf("image %s: %w", i.name, err)
		}

		name := map[string]string{images.RefName: i.reference(registry)}
		if err := index.AppendImage(image, layout.WithAnnotations(name)); err != nil {
			return fmt.Errorf("image %s in %s: %w", i.name, dir, err)
		}
	}

	return nil
}

func (i benchImage) reference(registry string) string { return registry + "/bench/" + i.name + ":1" }

func (i benchImage) build() (v1.Image, error) {
	image := mutate.ConfigMediaType(
		mutate.MediaType(empty.Image, types.OCIManifestSchema1),
		types.OCIConfigJSON,
	)

	for _, files := range i.layers {
		data, err := pack(files)
		if err != nil {
			return nil, err
		}

		open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }
		layer, err := tarball.LayerFromOpener(
			open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
		if err != nil {
			return nil, err
		}
		if image, err = mutate.AppendLayers(image, layer); err != nil {
			return nil, err
		}
	}

	config, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}

	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	return mutate.ConfigFile(image, config)
}

// pack makes a tar with an entry for each directory, as image builders do.
func pack(files []file) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	seen := map[string]bool{".": true}
	var directory func(name string) error
	directory = func(name string) error {
		if seen[name] {
			return nil
		}

		seen[name] = true
		if err := directory(filepath.Dir(name)); err != nil {
			return err
		}

		return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o755})
	}

	for _, f := range files {
		if err := directory(filepath.Dir(f.name)); err != nil {
			return nil, err
		}

		if err := w.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg,
			Name:     f.name,
			Size:     int64(len(f.data)),
			Mode:     0o644,
		}); err != nil {
			return nil, err
		}

		if _, err := w.Write(f.data); err != nil {
			return nil, err
		}
	}

	err := w.Close()
	return out.Bytes(), err
}
