package image

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/trivet-node/trivet/cri/image/platform"
	"github.com/trivet-node/trivet/cri/registry"
)

// Pull brings an image into the store and returns it. Pulls of the same reference at the same time share the
// work, pulls of different images share layers. When it fails, or ctx ends, nothing of the image stays but
// layers that others use.
func (s *Store) Pull(ctx context.Context, text string, auth registry.Auth) (Image, error) {
	ref, err := registry.ParseReference(text)
	if err != nil {
		return Image{}, err
	}

	// Credentials are part of the key, quoted: nobody gets an image by those of another.
	key := sha256.Sum256(fmt.Appendf(nil, "%q %q", ref.String(), auth))
	id, _, err := s.pulls.Do(ctx, hex.EncodeToString(key[:]), func(ctx context.Context) (string, error) {
		return s.pullFromRegistry(ctx, ref, auth)
	})
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", ref, err)
	}

	return s.Get(id)
}

func (s *Store) pullFromRegistry(
	ctx context.Context, ref registry.Reference, auth registry.Auth,
) (id string, err error) {
	from, err := s.cfg.Registry.Open(ref, auth)
	if err != nil {
		return "", err
	}

	p := &pull{
		store:    s,
		from:     from,
		platform: platform.Host(),
		arrived:  s.syncLater,
	}
	return p.run(ctx, func(top digest.Digest) names {
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

// pull is one image on its way into the store.
type pull struct {
	store *Store
	from  source

	// platform is what the image has to be for.
	platform ocispec.Platform

	// circle names those who share the work of a layer: a pull that has it in an archive must not wait for
	// one that has to ask a registry.
	circle string

	// arrived makes sure that an image which was not here before becomes safe on the disk.
	arrived func(*record)
}

// run brings the image in. namesOf returns its names, given the digest of the manifest or index that the
// source begins with.
func (p *pull) run(ctx context.Context, namesOf func(top digest.Digest) names) (id string, err error) {
	top, m, err := p.resolve(ctx)
	if err != nil {
		return "", err
	}

	// Many artifacts have the same, empty configuration.
	r := &record{ID: m.Config.Digest.String()}
	if m.isArtifact() {
		r.ID = m.digest.String()
	}

	n := namesOf(top)
	if p.mayRename(m, r.ID, n) && p.store.rename(r.ID, n) {
		return r.ID, nil
	}

	jobs, err := p.describe(ctx, m, r)
	if err != nil {
		return "", err
	}

	// The hold keeps the layers from being collected between their arrival and the record.
	release := p.hold(r)
	defer func() { err = errors.Join(err, release()) }()

	if err := p.fetchLayers(ctx, jobs); err != nil {
		return "", err
	}

	return r.ID, p.store.add(r, n, p.arrived)
}

// mayRename reports whether an image that is here need not be fetched again. The digest of its configuration
// is not secret (the status of a pod has it), and to know only that must not be enough to get the image: a
// repository that has not given the image before must have the configuration. The manifest of an artifact has
// been fetched, and is its ID.
func (p *pull) mayRename(m manifest, id string, n names) bool {
	if m.isArtifact() {
		return true
	}
	r := p.store.record(id)
	return r != nil && slices.ContainsFunc(n.digests, r.isFrom)
}

// hold keeps the layers of an image in the store until release.
func (p *pull) hold(r *record) (release func() error) {
	owner := "pull:" + r.ID + ":" + time.Now().String()
	p.store.mu.Lock()
	defer p.store.mu.Unlock()
	p.store.layers.hold(owner, r.Chain)
	return func() error { return p.store.Drop(owner) }
}

// resolve reads the manifest that the source begins with, and the one for this platform if that is an index.
// top is the digest of the first.
func (p *pull) resolve(ctx context.Context) (top digest.Digest, m manifest, err error) {
	got, err := p.from.Manifest(ctx)
	if err != nil {
		return "", m, err
	}

	top = got.Digest

	// An index may hold an index.
	for range 3 {
		m, err = parseManifest(got.Content, got.Digest)
		if err != nil {
			return "", m, err
		}
		if m.Config.Digest != "" {
			return top, m, nil
		}

		d, err := platform.Choose(m.Manifests, p.platform)
		if err != nil {
			return "", m, err
		}

		got, err = p.from.ManifestByDigest(ctx, d.Digest)
		if err != nil {
			return "", m, err
		}
	}

	return "", m, errors.New("indexes are nested too deeply")
}

// describe fills in the record of the image, and lists what is to be fetched for it.
func (p *pull) describe(ctx context.Context, m manifest, r *record) (jobs []layerJob, err error) {
	if m.isArtifact() {
		r.Artifact = true
		r.Config = []byte("{}")
		r.Chain = artifactChain(m)
		for i, d := range m.Layers {
			jobs = append(jobs, layerJob{blob: d, chain: r.Chain[:i+1], file: fileName(d)})
		}

		return jobs, nil
	}

	r.Config, err = p.readConfig(ctx, m.Config)
	if err != nil {
		return nil, err
	}

	config, chain, err := parseConfig(r.Config, len(m.Layers), p.platform)
	if err != nil {
		return nil, err
	}

	r.Chain = chain
	for i, d := range m.Layers {
		jobs = append(jobs, layerJob{blob: d, chain: r.Chain[:i+1], diff: config.RootFS.DiffIDs[i]})
	}

	return jobs, nil
}

func (p *pull) readConfig(ctx context.Context, d ocispec.Descriptor) ([]byte, error) {
	blob, err := p.from.Blob(ctx, d.Digest, d.Size)
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

// fetchLayers brings in what is missing, all layers at once within the limit, the lowest first.
func (p *pull) fetchLayers(ctx context.Context, jobs []layerJob) error {
	group, ctx := errgroup.WithContext(ctx)
	slots := make(chan struct{}, p.store.cfg.Parallel)
	for _, job := range jobs {
		if p.store.hasLayer(job.name()) {
			continue
		}
		group.Go(func() error { return p.fetchLayer(ctx, job, slots) })
	}
	return group.Wait()
}
