package main

import (
	"archive/tar"
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
)

// saved is an archive of one image.
type saved struct {
	about, name, id, file string
}

// writeArchives writes archives as docker save does, with layers that are not compressed.
func writeArchives(dir string) (list []saved, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}

	noise := rand.NewChaCha8([32]byte{2})
	for _, shape := range []struct {
		about        string
		number, size int
	}{
		{"one file of 100 MB", 1, 100 << 20},
		{"10,000 files of 10 kB", 10_000, 10 << 10},
	} {
		layer, err := files(noise, shape.number, shape.size)
		if err != nil {
			return nil, err
		}

		at := len(list)
		a := saved{
			about: shape.about,
			name:  fmt.Sprintf("bench.example/archive:%d", at),
			file:  filepath.Join(dir, fmt.Sprintf("archive%d.tar", at)),
		}
		if a.id, err = write(a.file, a.name, layer); err != nil {
			return nil, fmt.Errorf("%s: %w", a.about, err)
		}

		list = append(list, a)
	}

	return list, nil
}

// files is a layer of files that no compressor makes smaller.
func files(noise *rand.ChaCha8, number, size int) ([]byte, error) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	data := make([]byte, size)
	for i := range number {
		// It does not fail.
		_, _ = noise.Read(data)
		header := &tar.Header{
			Typeflag: tar.TypeReg,
			Name:     fmt.Sprintf("file%05d", i),
			Size:     int64(size),
			Mode:     0o644,
		}
		if err := w.WriteHeader(header); err != nil {
			return nil, err
		}
		if _, err := w.Write(data); err != nil {
			return nil, err
		}
	}

	err := w.Close()
	return out.Bytes(), err
}

// write writes the archive of an image and returns its ID.
func write(file, reference string, layer []byte) (id string, err error) {
	image, err := mutate.AppendLayers(empty.Image, static.NewLayer(layer, types.DockerUncompressedLayer))
	if err != nil {
		return "", err
	}

	config, err := image.ConfigFile()
	if err != nil {
		return "", err
	}

	config = config.DeepCopy()
	config.OS = "linux"
	config.Architecture = runtime.GOARCH
	if image, err = mutate.ConfigFile(image, config); err != nil {
		return "", err
	}

	tag, err := name.NewTag(reference)
	if err != nil {
		return "", err
	}
	if err := tarball.MultiWriteToFile(file, map[name.Tag]v1.Image{tag: image}); err != nil {
		return "", err
	}

	hash, err := image.ConfigName()
	return hash.String(), err
}

// load is what an import took.
type load struct {
	bench.Trial

	// peak is the most that the server had in memory, in bytes.
	peak int64
}

// loads are those of one archive by one side.
type loads []load

func (l loads) trials() bench.Trials {
	var all bench.Trials
	for _, one := range l {
		all = append(all, one.Trial)
	}
	return all
}

// peak is the median of the peaks, in MiB.
func (l loads) peak() float64 {
	var all []int64
	for _, one := range l {
		all = append(all, one.peak)
	}
	slices.Sort(all)
	return float64(all[len(all)/2]>>10) / 1024
}

func figuresOf(archive, side string, all loads) []figure.Figure {
	return []figure.Figure{
		figure.Of("archive", archive, side, all.trials().Times()),
		{
			Bench:  "archive",
			What:   archive + ": peak RSS of the server",
			Side:   side,
			Unit:   "MiB",
			Median: all.peak(),
			Count:  len(all),
		},
	}
}
