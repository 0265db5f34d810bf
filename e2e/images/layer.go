package images

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// file of a layer: one of data, source (a file of the host), link (symbolic) or hard; a path that ends with a
// slash is a directory.
type file struct {
	path   string
	mode   int64
	data   []byte
	source string
	link   string
	hard   string
}

// makeLayer packs files into a gzipped layer. Times and owners are all zero, so that equal files make an
// equal layer.
func makeLayer(files []file) (v1.Layer, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	seen := map[string]bool{"./": true, "/": true}
	for _, f := range files {
		if err := addParents(w, f.path, seen); err != nil {
			return nil, err
		}
		if err := addFile(w, f); err != nil {
			return nil, fmt.Errorf("file %s: %w", f.path, err)
		}
	}

	if err := w.Close(); err != nil {
		return nil, err
	}

	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}

func addParents(w *tar.Writer, name string, seen map[string]bool) error {
	if strings.HasSuffix(name, "/") {
		seen[name] = true
	}
	dir := path.Dir(strings.TrimSuffix(name, "/")) + "/"
	if seen[dir] {
		return nil
	}
	if err := addParents(w, dir, seen); err != nil {
		return err
	}
	return w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755})
}

func addFile(w *tar.Writer, f file) error {
	h := &tar.Header{Name: f.path, Mode: f.mode}
	switch {
	case strings.HasSuffix(f.path, "/"):
		h.Typeflag = tar.TypeDir
	case f.link != "":
		h.Typeflag, h.Linkname = tar.TypeSymlink, f.link
		h.Mode = 0o777
	case f.hard != "":
		h.Typeflag, h.Linkname = tar.TypeLink, f.hard
	default:
		h.Typeflag = tar.TypeReg
		if f.source != "" {
			var err error
			if f.data, err = os.ReadFile(f.source); err != nil {
				return err
			}
		}

		h.Size = int64(len(f.data))
	}

	if err := w.WriteHeader(h); err != nil {
		return err
	}

	_, err := w.Write(f.data)
	return err
}

// blob is what a registry keeps under a digest: a manifest, or the blob of a layer or of a configuration.
type blob struct {
	kind   string // "manifests" or "blobs"
	digest v1.Hash
	data   []byte
}

// blobsOf are all the blobs of an index with one image.
func blobsOf(index v1.ImageIndex, image v1.Image) ([]blob, error) {
	var blobs []blob
	for _, manifest := range []interface {
		Digest() (v1.Hash, error)
		RawManifest() ([]byte, error)
	}{index, image} {
		data, err := manifest.RawManifest()
		if err != nil {
			return nil, err
		}

		digest, err := manifest.Digest()
		if err != nil {
			return nil, err
		}

		blobs = append(blobs, blob{kind: "manifests", digest: digest, data: data})
	}

	config, err := image.RawConfigFile()
	if err != nil {
		return nil, err
	}

	digest, err := image.ConfigName()
	if err != nil {
		return nil, err
	}

	blobs = append(blobs, blob{kind: "blobs", digest: digest, data: config})

	layers, err := image.Layers()
	if err != nil {
		return nil, err
	}

	for _, layer := range layers {
		r, err := layer.Compressed()
		if err != nil {
			return nil, err
		}

		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return nil, err
		}
		if digest, err = layer.Digest(); err != nil {
			return nil, err
		}

		blobs = append(blobs, blob{kind: "blobs", digest: digest, data: data})
	}

	return blobs, nil
}
