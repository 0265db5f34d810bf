package images

import (
	"context"
	"fmt"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// assembly puts images together. A layer that several of them share is made once.
type assembly struct {
	inputs *inputs
	makers map[string]maker // by the layer's name
	made   map[string]v1.Layer
	say    func(format string, args ...any)
}

// write writes a layout with the images.
func (a *assembly) write(ctx context.Context, dir string, all []image) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}

	a.made = map[string]v1.Layer{}
	for _, image := range all {
		if err := a.add(ctx, path, image); err != nil {
			return fmt.Errorf("image %s: %w", image.names[0], err)
		}
	}

	return nil
}

func (a *assembly) add(ctx context.Context, path layout.Path, image image) error {
	index, err := a.index(ctx, image)
	if err != nil {
		return err
	}

	for _, name := range image.names {
		named := layout.WithAnnotations(map[string]string{RefName: name})
		if err := path.AppendIndex(index, named); err != nil {
			return err
		}
	}

	digest, err := index.Digest()
	if err != nil {
		return err
	}

	a.say("image %s %s", image.names[0], digest)
	return nil
}

// index is a multi-arch index with one platform, the host's.
func (a *assembly) index(ctx context.Context, image image) (v1.ImageIndex, error) {
	built, err := a.build(ctx, image)
	if err != nil {
		return nil, err
	}

	platform := &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	return mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: built, Descriptor: v1.Descriptor{Platform: platform}}), nil
}

// build puts an image together from its layers, which it makes where they are not made yet.
func (a *assembly) build(ctx context.Context, image image) (v1.Image, error) {
	built := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	built = mutate.ConfigMediaType(built, types.OCIConfigJSON)
	for _, name := range image.layers {
		layer, err := a.layer(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}
		if built, err = mutate.Append(built, mutate.Addendum{Layer: layer}); err != nil {
			return nil, err
		}
	}

	return mutate.ConfigFile(built, withConfig(built, image.config))
}

func (a *assembly) layer(ctx context.Context, name string) (v1.Layer, error) {
	if layer, ok := a.made[name]; ok {
		return layer, nil
	}

	files, err := a.files(ctx, name)
	if err != nil {
		return nil, err
	}

	layer, err := makeLayer(files)
	if err != nil {
		return nil, err
	}

	a.made[name] = layer
	return layer, nil
}

func withConfig(built v1.Image, config v1.Config) *v1.ConfigFile {
	file, err := built.ConfigFile()
	if err != nil {
		file = &v1.ConfigFile{}
	}
	file = file.DeepCopy()
	file.OS, file.Architecture = "linux", runtime.GOARCH
	file.Config = config
	return file
}
