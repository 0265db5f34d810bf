package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/trivet-node/trivet/cri/image/archive"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/internal/removal"
)

// Import adds the images of an archive that are for this platform. They are safe on the disk when it returns,
// as they cannot be pulled again. If pinned is set, garbage collection should keep them. After an error, the
// images before it are there.
func (s *Store) Import(ctx context.Context, from io.Reader, pinned bool) (images []Image, err error) {
	dir, err := os.MkdirTemp(filepath.Join(s.cfg.Dir, "tmp"), "import-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, removal.Tree(dir)) }()

	// The archive is read once, into files that serve as a registry does.
	a, err := archive.Open(ctx, from, dir)
	if err != nil {
		return nil, err
	}

	all, err := a.Images()
	if err != nil {
		return nil, err
	}

	for _, i := range forThisPlatform(all) {
		img, err := s.importOne(ctx, i, pinned)
		if err != nil {
			return images, fmt.Errorf("import image %.200q: %w", i.Names, err)
		}

		images = append(images, img)
	}

	if len(images) == 0 {
		return nil, errors.New("the archive has no image")
	}

	return images, nil
}

// forThisPlatform leaves out images that are for another platform, if there is one for this platform.
func forThisPlatform(all []archive.Image) (fitting []archive.Image) {
	for _, i := range all {
		if i.Platform == nil || fit(normalize(*i.Platform)) > 0 {
			fitting = append(fitting, i)
		}
	}
	if len(fitting) == 0 {
		// The error of their import says which platforms they are for.
		return all
	}
	return fitting
}

func (s *Store) importOne(ctx context.Context, i archive.Image, pinned bool) (Image, error) {
	var refs []registry.Reference
	for _, name := range i.Names {
		ref, err := registry.ParseReference(name)
		if err != nil {
			return Image{}, err
		}

		refs = append(refs, ref)
	}

	p := &pull{store: s, from: i}
	id, err := p.run(ctx, func(top digest.Digest) names {
		n := names{pinned: pinned}
		for _, ref := range refs {
			if ref.Tag != "" {
				n.tags = append(n.tags, ref.String())
			}
			if !i.MadeUp {
				n.digests = append(n.digests, ref.Name()+"@"+top.String())
			}
		}

		return n
	})
	if err != nil {
		return Image{}, err
	}

	// A pull returns before the sync; an import cannot be repeated, so it waits.
	if r := s.record(id); r != nil && !r.Synced {
		if err := s.sync(r); err != nil {
			return Image{}, err
		}
	}

	return s.Get(id)
}

// Export writes images into an archive. Their layers are packed again, so digests and IDs are different where
// they are imported.
func (s *Store) Export(ctx context.Context, names []string, to io.Writer) (err error) {
	owner := "export:" + time.Now().String()
	defer func() { err = errors.Join(err, s.Drop(owner)) }()

	var images []Image
	for _, name := range names {
		img, err := s.Get(name)
		if err != nil {
			return err
		}
		if img.Artifact {
			return fmt.Errorf("export %s: an OCI artifact can only be pulled from its registry", name)
		}

		// The layers must stay while they are packed, whatever happens to the image.
		if err := s.Hold(owner, img.Chain); err != nil {
			return err
		}

		images = append(images, img)
	}

	w := archive.NewWriter(to)
	for i, img := range images {
		if err := w.Add(ctx, img.Tags, img.RawConfig, img.Layers); err != nil {
			return fmt.Errorf("export %s: %w", names[i], err)
		}
	}

	return w.Close()
}
