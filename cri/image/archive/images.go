package archive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/registry"
)

// Image is an image of an archive. It serves its content as registry.Repository does.
type Image struct {
	// Names are as written in the archive; an image may have none.
	Names []string

	// Platform is what the archive says beside the image; nil if it does not.
	Platform *ocispec.Platform

	// MadeUp says that the manifest is not that of a registry: Docker's older form does not have one.
	MadeUp bool

	archive  *Archive
	manifest []byte // if it is made up
	digest   digest.Digest
}

// String returns the image's first name or, if it has none, its digest, as an error shows it.
func (i Image) String() string {
	name := i.digest.String()
	if len(i.Names) > 0 {
		name = i.Names[0]
	}
	return fmt.Sprintf("%.200q", name)
}

const (
	maxImages = 1000 // of an archive
	maxNames  = 100  // of an image
)

// containerdName is the annotation by which containerd and docker name an image in an index.
const containerdName = "io.containerd.image.name"

// Images returns the images of the archive.
func (a *Archive) Images() ([]Image, error) {
	_, isDocker := a.files["manifest.json"]
	if _, isOCI := a.files[ocispec.ImageIndexFile]; isOCI {
		list, err := a.ofIndex()
		if err != nil || !isDocker || allNamed(list) {
			return list, err
		}
	}
	if !isDocker {
		return nil, errors.New("the archive has neither index.json (OCI) nor manifest.json (Docker)")
	}
	return a.ofDocker()
}

func allNamed(list []Image) bool {
	for _, i := range list {
		if len(i.Names) == 0 {
			return false
		}
	}
	return true
}

// ofIndex reads index.json of the OCI layout.
func (a *Archive) ofIndex() (list []Image, err error) {
	var index ocispec.Index
	if err := a.decode(ocispec.ImageIndexFile, &index); err != nil {
		return nil, err
	}
	if len(index.Manifests) > maxImages {
		return nil, fmt.Errorf("index.json lists more than %d images", maxImages)
	}

	for _, d := range index.Manifests {
		i := Image{Platform: d.Platform, archive: a, digest: d.Digest}
		name := d.Annotations[containerdName]
		ref := d.Annotations[ocispec.AnnotationRefName]

		// A name without either is only a tag.
		if name == "" && strings.ContainsAny(ref, "/:") {
			name = ref
		}
		if name != "" {
			i.Names = []string{name}
		}

		list = append(list, i)
	}

	return list, nil
}

// dockerImage is an element of Docker's manifest.json.
type dockerImage struct {
	Config   string
	RepoTags []string
	Layers   []string
}

// ofDocker reads manifest.json and makes the manifests that it stands for.
func (a *Archive) ofDocker() (list []Image, err error) {
	var images []dockerImage
	if err := a.decode("manifest.json", &images); err != nil {
		return nil, err
	}
	if len(images) > maxImages {
		return nil, fmt.Errorf("manifest.json lists more than %d images", maxImages)
	}

	for _, d := range images {
		if len(d.RepoTags) > maxNames {
			return nil, fmt.Errorf("manifest.json: an image has more than %d names", maxNames)
		}

		i := Image{Names: d.RepoTags, MadeUp: true, archive: a}

		// The manifest gives the image a digest, by which its content is served.
		if i.manifest, err = a.makeManifest(d); err != nil {
			return nil, fmt.Errorf("manifest.json: %w", err)
		}

		i.digest = digest.FromBytes(i.manifest)
		list = append(list, i)
	}

	return list, nil
}

func (a *Archive) makeManifest(d dockerImage) ([]byte, error) {
	config, err := a.find(d.Config)
	if err != nil {
		return nil, err
	}

	m := ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2},
		MediaType: ocispec.MediaTypeImageManifest,
		Config:    describe(config, ocispec.MediaTypeImageConfig),
	}

	for _, name := range d.Layers {
		f, err := a.find(name)
		if err != nil {
			return nil, err
		}

		m.Layers = append(m.Layers, describe(f, ocispec.MediaTypeImageLayer))
	}

	return json.Marshal(m)
}

func describe(f file, mediaType string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: f.digest, Size: f.size}
}

func (a *Archive) decode(name string, into any) error {
	f, err := a.find(name)
	if err != nil {
		return err
	}

	data, err := a.read(f)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}

	return nil
}

// Manifest returns the image's manifest or index.
func (i Image) Manifest(ctx context.Context) (registry.Manifest, error) {
	if !i.MadeUp {
		return i.ManifestByDigest(ctx, i.digest)
	}
	return registry.Manifest{Digest: i.digest, Content: i.manifest}, nil
}

// ManifestByDigest returns a manifest that an index names.
func (i Image) ManifestByDigest(_ context.Context, d digest.Digest) (registry.Manifest, error) {
	f, ok := i.archive.blobs[d]
	if !ok {
		return registry.Manifest{}, fmt.Errorf("the archive does not hold manifest %.100q", d)
	}
	content, err := i.archive.read(f)
	if err != nil {
		return registry.Manifest{}, fmt.Errorf("manifest %s: %w", d, err)
	}
	return registry.Manifest{Digest: d, Content: content}, nil
}

// Blob opens a blob of size bytes. The caller closes it.
func (i Image) Blob(_ context.Context, d digest.Digest, size int64) (io.ReadCloser, error) {
	f, ok := i.archive.blobs[d]
	if !ok {
		return nil, fmt.Errorf("the archive does not hold blob %.100q", d)
	}
	if f.size != size {
		return nil, fmt.Errorf("blob %s has %d bytes in the archive, %d by its manifest", d, f.size, size)
	}
	return os.Open(i.archive.path(f))
}
