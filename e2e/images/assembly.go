package images

import (
	"context"
	"fmt"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/trivet-node/trivet/internal/ociimage"
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
	return ociimage.Index(built)
}

// build puts an image together from its layers, which it makes where they are not made yet.
func (a *assembly) build(ctx context.Context, image image) (v1.Image, error) {
	var layers []v1.Layer
	for _, name := range image.layers {
		layer, err := a.layer(ctx, name)
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", name, err)
		}

		layers = append(layers, layer)
	}

	return ociimage.New(v1.ConfigFile{
		OS:           "linux",
		Architecture: runtime.GOARCH,
		Config:       image.config,
	}, layers...)
}

func (a *assembly) layer(ctx context.Context, name string) (v1.Layer, error) {
	if layer, ok := a.made[name]; ok {
		return layer, nil
	}

	files, err := a.files(ctx, name)
	if err != nil {
		return nil, err
	}

	layer, err := ociimage.Layer(files)
	if err != nil {
		return nil, err
	}

	a.made[name] = layer
	return layer, nil
}
