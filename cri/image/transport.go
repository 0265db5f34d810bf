package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/image/archive"
	"github.com/trivet-node/trivet/cri/image/platform"
	"github.com/trivet-node/trivet/cri/registry"
	"github.com/trivet-node/trivet/internal/removal"
)

// ImportOptions say what of an archive is imported, and how it is kept.
type ImportOptions struct {
	// Platform is the one whose images are taken, such as linux/arm64. "" is this machine's; another one's
	// programs only run where the kernel has an emulator for them.
	Platform string

	// Pinned says that garbage collection should keep the images.
	Pinned bool
}

// Import adds the images of an archive that are for the platform. They are safe on the disk when it returns,
// as they cannot be pulled again. After an error, the images before it are there.
func (s *Store) Import(ctx context.Context, from io.Reader, o ImportOptions) (images []Image, err error) {
	want, err := platform.Parse(o.Platform)
	if err != nil {
		return nil, err
	}

	i := &importing{store: s, platform: want, pinned: o.Pinned}
	err = i.archive(ctx, from)

	// The archive's files are gone, so the disk has only the layers to write.
	err = errors.Join(err, i.makeSafe())
	for _, id := range i.ids {
		img, lost := s.Get(id)
		if lost != nil {
			err = errors.Join(err, lost)
			continue
		}

		images = append(images, img)
	}

	return images, err
}

// importing is one archive on its way into the store.
type importing struct {
	store    *Store
	platform ocispec.Platform
	pinned   bool

	// ids are the images that are there, each once.
	ids []string
}

// archive imports all images of an archive.
func (i *importing) archive(ctx context.Context, from io.Reader) (err error) {
	dir, err := os.MkdirTemp(filepath.Join(i.store.cfg.Dir, "tmp"), "import-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, removal.Tree(dir)) }()

	// The archive is read once, into files that serve as a registry does.
	a, err := archive.Open(ctx, from, dir)
	if err != nil {
		return err
	}

	all, err := a.Images()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return errors.New("the archive has no image")
	}

	for _, img := range fitting(all, i.platform) {
		id, err := i.image(ctx, img)
		if err != nil {
			return fmt.Errorf("image %s: %w", img, err)
		}
		if !slices.Contains(i.ids, id) {
			i.ids = append(i.ids, id)
		}
	}

	return nil
}

// fitting returns the images of an archive that are to be imported: those for the platform, and then those
// with a name that none for the platform has, whose import says what they are for. An archive may have the
// images of a name for several platforms side by side, and things that are not for a platform.
func fitting(all []archive.Image, want ocispec.Platform) []archive.Image {
	var fit, others []archive.Image
	named := make(map[string]bool)
	for _, i := range all {
		if i.Platform != nil && !platform.Fits(*i.Platform, want) {
			others = append(others, i)
			continue
		}

		fit = append(fit, i)
		for _, name := range i.Names {
			named[name] = true
		}
	}

	if len(fit) == 0 {
		return others
	}

	for _, i := range others {
		missing := func(name string) bool { return !named[name] }
		if slices.ContainsFunc(i.Names, missing) {
			fit = append(fit, i)
		}
	}

	return fit
}

func (i *importing) image(ctx context.Context, img archive.Image) (id string, err error) {
	var refs []registry.Reference
	for _, name := range img.Names {
		ref, err := registry.ParseReference(name)
		if err != nil {
			return "", err
		}

		refs = append(refs, ref)
	}

	p := &pull{
		store:    i.store,
		from:     img,
		platform: i.platform,
		circle:   "archive:",
		arrived:  func(*record) {},
	}
	return p.run(ctx, func(top digest.Digest) names {
		n := names{pinned: i.pinned, archived: true}
		for _, ref := range refs {
			if ref.Tag != "" {
				n.tags = append(n.tags, ref.String())
			}
			if !img.MadeUp {
				n.digests = append(n.digests, ref.Name()+"@"+top.String())
			}
		}

		return n
	})
}

// makeSafe waits until the images are safe on the disk: an import cannot be repeated as a pull can.
func (i *importing) makeSafe() error {
	var unsafe []*record
	for _, id := range i.ids {
		if r := i.store.record(id); r != nil && !r.Synced {
			unsafe = append(unsafe, r)
		}
	}
	if len(unsafe) == 0 {
		return nil
	}
	return i.store.sync(unsafe...)
}

// Export writes images into an archive, each with the names by which it is asked for; an ID or a digest
// brings all its tags. The images keep their IDs, but not the digests of registries, whose manifests name
// compressed layers.
func (s *Store) Export(ctx context.Context, names []string, to io.Writer) (err error) {
	owner := "export:" + time.Now().String()
	defer func() { err = errors.Join(err, s.Drop(owner)) }()

	var list []exported
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

		list = withName(list, img, name)
	}

	w := archive.NewWriter(to)
	for _, e := range list {
		if err := w.Add(ctx, e.tags, e.RawConfig, e.unpacked()); err != nil {
			return fmt.Errorf("export %s: %w", e.asked, err)
		}
	}

	return w.Close()
}

// exported is an image that goes into an archive with some of its tags.
type exported struct {
	Image
	asked string
	tags  []string
}

// unpacked returns the image's layers, the lowest first.
func (e exported) unpacked() (layers []archive.Layer) {
	for i, dir := range e.Layers {
		layers = append(layers, archive.Layer{
			Dir:  dir,
			Tape: filepath.Join(filepath.Dir(dir), tapeFile),
			Diff: e.Config.RootFS.DiffIDs[i],
		})
	}
	return layers
}

// withName adds the image that was asked for by a name to a list that may have it already.
func withName(list []exported, img Image, name string) []exported {
	tags := img.Tags
	if ref, err := registry.ParseReference(name); err == nil && slices.Contains(tags, ref.String()) {
		tags = []string{ref.String()}
	}

	at := slices.IndexFunc(list, func(e exported) bool { return e.ID == img.ID })
	if at < 0 {
		return append(list, exported{Image: img, asked: name, tags: tags})
	}

	for _, tag := range tags {
		if !slices.Contains(list[at].tags, tag) {
			list[at].tags = append(list[at].tags, tag)
		}
	}

	// The archive is the same whatever the order in which it is asked for an image's names.
	slices.Sort(list[at].tags)
	return list
}
