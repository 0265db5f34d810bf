package distribution

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/trivet-node/trivet/internal/ociimage"
	"github.com/trivet-node/trivet/internal/tarfile"
	"github.com/trivet-node/trivet/release/part"
)

// homepage of the project.
const homepage = "https://github.com/trivet-node/trivet"

// repository is where images are, as container runtimes complete a name without a registry.
const repository = "docker.io/library/"

// writeImages writes an archive of each part's image, with all architectures.
func (w *writer) writeImages(context.Context) error {
	for _, p := range part.Parts {
		var images []v1.Image
		for _, arch := range Architectures {
			image, err := w.image(p, arch)
			if err != nil {
				return fmt.Errorf("image %s for %s: %w", p.Name, arch, err)
			}

			images = append(images, image)
		}

		index, err := ociimage.Index(images...)
		if err != nil {
			return err
		}

		var archive bytes.Buffer
		if err := ociimage.WriteArchive(&archive, index, repository+p.Name, w.Version); err != nil {
			return fmt.Errorf("image %s: %w", p.Name, err)
		}
		if err := w.write(w.imageFile(p), 0o644, archive.Bytes()); err != nil {
			return err
		}

		digest, err := index.Digest()
		if err != nil {
			return err
		}

		w.Say("%s:%s is %s", p.Name, w.Version, digest)
	}
	return nil
}

func (w *writer) imageFile(p part.Part) string {
	return fmt.Sprintf("images/%s_%s.oci.tar", p.Name, w.Version)
}

// image makes the image of a part for an architecture. What changes less often is below.
func (w *writer) image(p part.Part, arch string) (v1.Image, error) {
	var layers []v1.Layer
	for _, files := range [][]tarfile.File{w.tools[p.Name+"/"+arch].files, w.shipped(p, arch)} {
		if len(files) == 0 {
			continue
		}

		layer, err := ociimage.Layer(files)
		if err != nil {
			return nil, err
		}

		layers = append(layers, layer)
	}

	return ociimage.New(v1.ConfigFile{
		OS:           "linux",
		Architecture: arch,
		Created:      v1.Time{Time: w.Time.UTC()},
		Config: v1.Config{
			Env:        []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			WorkingDir: "/",
			Entrypoint: p.Image.Entrypoint,
			Labels:     w.labels(p),
		},
	}, layers...)
}

func (w *writer) labels(p part.Part) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":       p.Name,
		prefix + "description": p.Package.Summary,
		prefix + "version":     w.Version,
		prefix + "revision":    w.Revision,
		prefix + "created":     w.Time.UTC().Format(time.RFC3339),
		prefix + "source":      homepage,
		prefix + "licenses":    "Apache-2.0",
	}
}

// shipped are the files of an image that are ours: the programs, and what an installer that runs in a
// container puts on a machine.
func (w *writer) shipped(p part.Part, arch string) []tarfile.File {
	docs := path.Join("usr/share/doc", p.Name)
	files := []tarfile.File{
		// Programs expect it, mkfs among them.
		{Path: "tmp/", Mode: 0o1777},
		{Path: path.Join(docs, "third-party-licenses"), Mode: 0o644, Data: w.licenses},
		{Path: path.Join(docs, "LICENSE"), Mode: 0o644, Source: filepath.Join(w.Source, "LICENSE")},

		// Scanners of images look for this name.
		{Path: path.Join(docs, p.Name+".cdx.json"), Mode: 0o644, Data: w.lists[p.Name]},
	}

	for _, program := range p.Shipped() {
		source := w.program(arch, program.Name)
		files = append(files, tarfile.File{Path: program.Shipped, Mode: 0o755, Source: source})
	}

	names := []string{p.Service.Unit}
	for _, c := range p.Configuration {
		names = append(names, c.Source)
	}
	for _, name := range names {
		files = append(files, tarfile.File{
			Path:   path.Join("usr/share", p.Name, name),
			Mode:   0o644,
			Source: w.deployed(p, name),
		})
	}

	slices.SortFunc(files, byPath)
	return files
}

func byPath(a, b tarfile.File) int { return strings.Compare(a.Path, b.Path) }
