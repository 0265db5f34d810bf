// Package images builds the images that a cluster without an internet connection needs, under their official
// names: busybox, pause, CoreDNS, metrics-server, the images of the published test suite, and trivet/demo.
// They are stand-ins, made of programs built through the Go module proxy and of Debian's busybox with the
// libraries it links; docs/images.md says which is which. The result is an OCI image layout whose index names
// each image in the annotation org.opencontainers.image.ref.name. Equal inputs give equal digests.
package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// RefName is the annotation that holds an image's name in the index of a layout.
const RefName = "org.opencontainers.image.ref.name"

// Builder has the inputs.
type Builder struct {
	Source string // root of the repository

	// CoreDNS and MetricsServer are programs; without one there is no image of it.
	CoreDNS       string
	MetricsServer string

	Say func(format string, args ...any)
}

// Build writes the layout to dir, which it replaces.
func (b *Builder) Build(ctx context.Context, dir string) error {
	work := filepath.Clean(dir) + ".new"

	// A build that was killed may have left one.
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	defer os.RemoveAll(work)

	in, err := b.inputs(ctx, work)
	if err != nil {
		return err
	}

	fresh := filepath.Join(work, "layout")
	if err := b.write(fresh, catalog(), in); err != nil {
		return err
	}

	return replaceDir(dir, fresh)
}

// inputs builds and downloads what layers are made of.
func (b *Builder) inputs(ctx context.Context, work string) (in inputs, err error) {
	if in.programs, err = b.programs(ctx, filepath.Join(work, "bin")); err != nil {
		return in, err
	}
	if in.busybox, err = busyboxFiles(ctx, work); err != nil {
		return in, fmt.Errorf("busybox: %w", err)
	}
	if in.bash, err = bashFiles(ctx, work); err != nil {
		return in, fmt.Errorf("bash: %w", err)
	}
	if in.netcat, err = netcatFiles(ctx, work); err != nil {
		return in, fmt.Errorf("netcat: %w", err)
	}

	return in, nil
}

// write writes a layout with the images. Layers that several images share are made once.
func (b *Builder) write(dir string, all []image, in inputs) error {
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}

	made := map[string]v1.Layer{}
	for _, image := range all {
		if image.needs != "" && in.programs[image.needs] == "" {
			continue
		}
		if err := b.add(path, image, in, made); err != nil {
			return fmt.Errorf("image %s: %w", image.names[0], err)
		}
	}

	return nil
}

func (b *Builder) add(path layout.Path, image image, in inputs, made map[string]v1.Layer) error {
	built, err := build(image, in, made)
	if err != nil {
		return err
	}

	platform := &v1.Platform{OS: "linux", Architecture: runtime.GOARCH}
	index := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex),
		mutate.IndexAddendum{Add: built, Descriptor: v1.Descriptor{Platform: platform}})
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

	b.Say("image %s %s", image.names[0], digest)
	return nil
}

// build puts an image together from its layers, which it makes where they are not made yet.
func build(image image, in inputs, made map[string]v1.Layer) (v1.Image, error) {
	built := mutate.MediaType(empty.Image, types.OCIManifestSchema1)
	built = mutate.ConfigMediaType(built, types.OCIConfigJSON)
	for _, name := range image.layers {
		if made[name] == nil {
			files, err := in.files(name)
			if err != nil {
				return nil, err
			}
			if made[name], err = makeLayer(files); err != nil {
				return nil, fmt.Errorf("layer %s: %w", name, err)
			}
		}

		var err error
		if built, err = mutate.Append(built, mutate.Addendum{Layer: made[name]}); err != nil {
			return nil, err
		}
	}

	return mutate.ConfigFile(built, withConfig(built, image.config))
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

// replaceDir puts fresh where dir is. A reader that has files of the old one open keeps them.
func replaceDir(dir, fresh string) error {
	old := dir + ".old"
	if err := os.RemoveAll(old); err != nil {
		return err
	}
	if err := os.Rename(dir, old); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Rename(fresh, dir); err != nil {
		return err
	}
	return os.RemoveAll(old)
}
