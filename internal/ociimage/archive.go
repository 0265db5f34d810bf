package ociimage

import (
	"errors"
	"io"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/trivet-node/trivet/internal/tarfile"
)

// Annotations by which programs that load an archive name an image in its index: RefName has the name or, in
// archives of Docker and containerd, the tag alone; FullName is theirs for the whole name.
const (
	RefName  = "org.opencontainers.image.ref.name"
	FullName = "io.containerd.image.name"
)

// layoutVersion is the content of the file oci-layout (OCI image layout, "oci-layout file").
const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// WriteArchive writes a tar archive of an OCI layout with one image, whose name is REPOSITORY:TAG. Files have
// no times and no owners, and blobs are sorted by digest.
func WriteArchive(w io.Writer, image v1.ImageIndex, repository, tag string) error {
	top := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	named := mutate.AppendManifests(top, mutate.IndexAddendum{
		Add: image,
		Descriptor: v1.Descriptor{
			Annotations: map[string]string{FullName: repository + ":" + tag, RefName: tag},
		},
	})

	index, err := named.RawManifest()
	if err != nil {
		return err
	}

	blobs := map[string][]byte{}
	if err := collect(blobs, image); err != nil {
		return err
	}

	files := []tarfile.File{
		{Path: "oci-layout", Mode: 0o644, Data: []byte(layoutVersion)},
		{Path: "index.json", Mode: 0o644, Data: index},
	}
	for _, path := range slices.Sorted(maps.Keys(blobs)) {
		files = append(files, tarfile.File{Path: path, Mode: 0o644, Data: blobs[path]})
	}

	return tarfile.Write(w, tarfile.Form{}, files)
}

// collect adds all blobs of an index, by their paths in the layout.
func collect(blobs map[string][]byte, index v1.ImageIndex) error {
	data, err := index.RawManifest()
	if err != nil {
		return err
	}

	digest, err := index.Digest()
	if err != nil {
		return err
	}

	blobs[blobPath(digest)] = data
	images, err := partial.Manifests(index)
	if err != nil {
		return err
	}

	for _, described := range images {
		image, ok := described.(v1.Image)
		if !ok {
			return errors.New("an index of an index is not written")
		}
		if err := collectImage(blobs, image); err != nil {
			return err
		}
	}

	return nil
}

func collectImage(blobs map[string][]byte, image v1.Image) error {
	manifest, err := image.Manifest()
	if err != nil {
		return err
	}

	raw, err := image.RawManifest()
	if err != nil {
		return err
	}

	digest, err := image.Digest()
	if err != nil {
		return err
	}

	config, err := image.RawConfigFile()
	if err != nil {
		return err
	}

	blobs[blobPath(digest)] = raw
	blobs[blobPath(manifest.Config.Digest)] = config

	layers, err := image.Layers()
	if err != nil {
		return err
	}

	for i, layer := range layers {
		r, err := layer.Compressed()
		if err != nil {
			return err
		}

		data, err := io.ReadAll(r)
		if err := errors.Join(err, r.Close()); err != nil {
			return err
		}

		blobs[blobPath(manifest.Layers[i].Digest)] = data
	}

	return nil
}

func blobPath(digest v1.Hash) string { return "blobs/" + digest.Algorithm + "/" + digest.Hex }
