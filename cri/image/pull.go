package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/cri/registry"
)

// Pull brings an image into the store and returns it. Pulls of the same reference at the same time share the
// work, pulls of different images share layers. When it fails, or its context ends, nothing of it stays but
// layers that others use.
func (s *Store) Pull(ctx context.Context, text string, auth registry.Auth) (Image, error) {
	ref, err := registry.ParseReference(text)
	if err != nil {
		return Image{}, err
	}

	// Credentials are part of the key, quoted: nobody gets in on another's.
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q", ref.String(), auth))
	work := func(ctx context.Context) (string, error) { return s.pull(ctx, ref, auth) }
	id, _, err := s.pulls.do(ctx, hex.EncodeToString(sum[:]), work)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", ref, err)
	}

	return s.Get(id)
}

func (s *Store) pull(ctx context.Context, ref registry.Reference, auth registry.Auth) (id string, err error) {
	from, err := s.config.Registry.Open(ref, auth)
	if err != nil {
		return "", err
	}
	return s.bring(ctx, from, func(top digest.Digest) names {
		n := names{digests: []string{ref.Name() + "@" + top.String()}}
		if ref.Tag != "" {
			n.tags = []string{ref.String()}
		}
		return n
	})
}

// source is where an image comes from: a repository of a registry, or an archive.
type source interface {
	Manifest(context.Context) (registry.Manifest, error)
	ManifestByDigest(context.Context, digest.Digest) (registry.Manifest, error)
	Blob(context.Context, digest.Digest, int64) (io.ReadCloser, error)
}

// names is what an image is called when it has come.
type names struct {
	tags, digests []string
	pinned        bool
}

// bring brings in an image. named tells its names, given the digest of the manifest or index that the source
// begins with.
func (s *Store) bring(
	ctx context.Context, from source, named func(top digest.Digest) names,
) (id string, err error) {
	top, m, err := resolve(ctx, from)
	if err != nil {
		return "", err
	}

	r := &record{ID: m.Config.Digest.String()}

	// many have the same, empty configuration
	if m.isArtifact() {
		r.ID = m.digest.String()
	}

	// An image that is here is not fetched again. But the digest of its configuration is no secret (the
	// status of a pod has it), and who knows no more than that may not get at the image: a repository that
	// has not given the image before must have the configuration. A manifest that is the ID is here already.
	n := named(top)
	if (m.isArtifact() || s.cameFrom(r.ID, n.digests)) && s.rename(r.ID, n) {
		return r.ID, nil
	}

	jobs, err := describe(ctx, from, m, r)
	if err != nil {
		return "", err
	}

	// The hold keeps the layers from being collected between their arrival and the record.
	hold := "pull:" + r.ID + ":" + time.Now().String()
	s.mu.Lock()
	s.holdLocked(hold, r.Chain)
	s.mu.Unlock()
	defer func() { err = errors.Join(err, s.Drop(hold)) }()

	if err := s.fetchLayers(ctx, jobs); err != nil {
		return "", err
	}

	return r.ID, s.add(r, n)
}

// describe fills in the record of an image, and lists what is to be fetched for it.
func describe(ctx context.Context, from source, m manifest, r *record) (jobs []layerJob, err error) {
	var diffs []digest.Digest
	if m.isArtifact() {
		r.Artifact, r.Config, r.Chain = true, []byte("{}"), artifactChain(m)
	} else {
		if r.Config, err = readConfig(ctx, from, m.Config); err != nil {
			return nil, err
		}

		config, chain, err := parseConfig(r.Config, len(m.Layers))
		if err != nil {
			return nil, err
		}

		r.Chain, diffs = chain, config.RootFS.DiffIDs
	}

	for i, d := range m.Layers {
		job := layerJob{blob: d, chain: r.Chain[:i+1], source: from}
		if r.Artifact {
			job.file = fileName(d)
		} else {
			job.diff = diffs[i]
		}

		jobs = append(jobs, job)
	}

	return jobs, nil
}

// resolve reads the manifest that the source begins with, and the one for this platform if that is an index.
// top is the digest of the first.
func resolve(ctx context.Context, from source) (top digest.Digest, m manifest, err error) {
	got, err := from.Manifest(ctx)
	if err != nil {
		return "", m, err
	}

	top = got.Digest

	// an index may hold an index
	for range 3 {
		if m, err = parseManifest(got.Content, got.Digest); err != nil {
			return "", m, err
		}
		if m.Config.Digest != "" {
			return top, m, nil
		}

		d, err := choose(m.Manifests)
		if err != nil {
			return "", m, err
		}
		if got, err = from.ManifestByDigest(ctx, d.Digest); err != nil {
			return "", m, err
		}
	}

	return "", m, errors.New("indexes are nested too deeply")
}

func readConfig(ctx context.Context, from source, d ocispec.Descriptor) ([]byte, error) {
	blob, err := from.Blob(ctx, d.Digest, d.Size)
	if err != nil {
		return nil, err
	}
	defer blob.Close()

	raw, err := io.ReadAll(blob)
	if err != nil {
		return nil, err
	}
	if got := d.Digest.Algorithm().FromBytes(raw); got != d.Digest {
		return nil, fmt.Errorf("image configuration has digest %s, want %s", got, d.Digest)
	}

	return raw, nil
}

// cameFrom reports whether an image is here and has been pulled from the repository of one of these names.
func (s *Store) cameFrom(id string, digests []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	r := s.images[id]
	if r == nil {
		return false
	}

	return slices.ContainsFunc(digests, func(name string) bool {
		repository, _, _ := strings.Cut(name, "@")
		return slices.ContainsFunc(r.Digests, func(known string) bool {
			return strings.HasPrefix(known, repository+"@")
		})
	})
}

// rename gives an image that is already here the names by which it has come again.
func (s *Store) rename(id string, n names) (known bool) {
	s.mu.Lock()
	r := s.images[id]
	s.mu.Unlock()
	return r != nil && s.add(r, n) == nil
}

// fetchLayers brings in what is missing, all layers at once within the limit, the lowest first.
func (s *Store) fetchLayers(ctx context.Context, jobs []layerJob) error {
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, s.config.Parallel)
	for _, job := range jobs {
		if s.hasLayer(job.name()) {
			continue
		}
		job.slots = slots
		group.Go(func() error { return s.fetchLayer(ctx, job) })
	}
	return group.Wait()
}

// add writes the image's record with its new names and takes its tags away from the images that had them.
func (s *Store) add(r *record, n names) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if old := s.images[r.ID]; old != nil {
		r = old
	}

	for _, c := range r.Chain {
		if _, ok := s.sizes[c]; !ok {
			return fmt.Errorf("layer %s: %w", c, ErrNotFound)
		}
	}

	isNew := s.images[r.ID] == nil
	next := r.copy()
	if isNew {
		s.arrivals++
		next.Boot, next.Synced, next.arrival = s.boot, false, s.arrivals
	}

	next.Pinned = next.Pinned || n.pinned
	for _, tag := range n.tags {
		next.Tags[tag] = time.Now()
	}

	for _, name := range n.digests {
		next.addDigest(name)
	}

	if err := s.put(next); err != nil {
		return err
	}
	if isNew {
		s.syncLater(next)
	}

	for _, tag := range n.tags {
		if err := s.untagOthers(next.ID, tag); err != nil {
			return err
		}
	}

	return nil
}

// put needs s.mu.
func (s *Store) put(r *record) error {
	if err := r.parse(); err != nil {
		return err
	}
	if err := s.records.Put(hexOf(r.ID), *r); err != nil {
		return fmt.Errorf("record image %s: %w", r.ID, err)
	}
	s.images[r.ID] = r
	return nil
}

// untagOthers needs s.mu.
func (s *Store) untagOthers(id, tag string) error {
	for _, other := range slices.Collect(maps.Values(s.images)) {
		if _, has := other.Tags[tag]; !has || other.ID == id {
			continue
		}
		next := other.copy()
		delete(next.Tags, tag)
		if err := s.put(next); err != nil {
			return err
		}
	}
	return nil
}

// syncLater makes the layers of a new image safe on the disk without anybody waiting: the image serves at
// once, and until the sync is done, its record counts only for this boot, in which the page cache has what
// the disk lacks.
func (s *Store) syncLater(r *record) {
	s.syncing.Go(func() {
		if err := s.sync(r); err != nil {
			s.config.Log.Error("image is not safe on the disk; it will be pulled again after a reboot",
				"image", r.ID, "err", err)
		}
	})
}

// sync marks the image as safe, unless it was removed meanwhile: what has been pulled again since has a sync
// of its own.
func (s *Store) sync(began *record) error {
	dir, err := os.Open(s.config.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()

	if err := unix.Syncfs(int(dir.Fd())); err != nil {
		return fmt.Errorf("syncfs %s: %w", s.config.Dir, err)
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	r := s.images[began.ID]
	if r == nil || r.arrival != began.arrival {
		return nil
	}

	next := r.copy()
	next.Synced = true
	return s.put(next)
}
