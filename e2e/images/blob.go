package images

import (
	"errors"
	"io"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

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
