package ociimage

import (
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// New is an image of one platform, which config names, from its layers, the lowest first. The root file
// system and the history of config are made here.
func New(config v1.ConfigFile, layers ...v1.Layer) (v1.Image, error) {
	image := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	image = mutate.ConfigMediaType(image, types.OCIConfigJSON)

	image, err := mutate.AppendLayers(image, layers...)
	if err != nil {
		return nil, err
	}

	made, err := image.ConfigFile()
	if err != nil {
		return nil, err
	}

	config.RootFS, config.History = made.RootFS, made.History
	return mutate.ConfigFile(image, &config)
}

// Index is an index of images of one name, one for each platform.
func Index(images ...v1.Image) (v1.ImageIndex, error) {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, image := range images {
		config, err := image.ConfigFile()
		if err != nil {
			return nil, fmt.Errorf("platform of an image: %w", err)
		}

		platform := &v1.Platform{OS: config.OS, Architecture: config.Architecture, Variant: config.Variant}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        image,
			Descriptor: v1.Descriptor{Platform: platform},
		})
	}
	return index, nil
}
