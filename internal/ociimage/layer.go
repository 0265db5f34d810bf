// Package ociimage writes OCI images: a layer from files, an image from layers, an index of an image's
// platforms, and an archive of an index. Equal inputs give equal digests.
package ociimage

import (
	"bytes"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// Layer packs files into a gzipped layer. Its entries have no times and no owners' names: a layer whose files
// stay equal from version to version is pulled once.
func Layer(files []tarfile.File) (v1.Layer, error) {
	var buf bytes.Buffer
	if err := tarfile.Write(&buf, tarfile.Form{}, files); err != nil {
		return nil, err
	}

	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
}
