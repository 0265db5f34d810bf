// Package image keeps container images on disk: it pulls them (fetch, verify, decompress and unpack in one
// pass, layers in parallel), finds them by name, digest or ID, and removes them with every layer that nothing
// else needs. Layers are overlayfs lower directories; no compressed blob is kept. It knows neither CRI nor
// mounts; cri/rootfs mounts the layers.
package image

import (
	"errors"
	"maps"
	"slices"
	"strings"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/registry"
)

// ErrNotFound is returned for an image that is not in the store.
var ErrNotFound = errors.New("image not found")

// Image is an image in the store.
type Image struct {
	// ID is the digest of the configuration (of the manifest if it is an artifact), "sha256:...".
	ID string

	// Tags are full names, "docker.io/library/busybox:1", sorted.
	Tags []string

	// Digests are names with a digest, "docker.io/library/busybox@sha256:...", the last pulled one first.
	Digests []string

	// Size is how many bytes its layers take unpacked, and its configuration.
	Size int64

	// Pinned says that garbage collection should keep it. Store.Remove removes it all the same.
	Pinned bool

	// Artifact says that it is an OCI artifact: files to mount, nothing to run.
	Artifact bool

	// Config is the parsed configuration, which must not be changed; RawConfig is as pulled.
	Config    ocispec.Image
	RawConfig []byte

	// Layers are directories, and Chain the names of the layers for Store.Hold, both the lowest first.
	Layers []string
	Chain  []string
}

// imageOf returns the image of a record without what its layers say.
func imageOf(r *record) Image {
	i := Image{
		ID:        r.ID,
		Tags:      slices.Sorted(maps.Keys(r.Tags)),
		Digests:   slices.Clone(r.Digests),
		Size:      int64(len(r.Config)),
		Pinned:    r.Pinned,
		Artifact:  r.Artifact,
		Config:    *r.parsed,
		RawConfig: r.Config,
		Chain:     slices.Clone(r.Chain),
	}

	slices.Reverse(i.Digests)
	return i
}

// Reference returns the image's name with the digest of the manifest, "docker.io/library/busybox@sha256:...",
// for a caller who asked for the image by name: of the repository in the name, if the image was pulled from
// there. It is the ID if the image has no such name.
func (i Image) Reference(name string) string {
	if len(i.Digests) == 0 {
		return i.ID
	}

	ref, err := registry.ParseReference(name)
	if err != nil {
		return i.Digests[0]
	}
	if ref.Digest != "" && slices.Contains(i.Digests, ref.String()) {
		return ref.String()
	}

	for _, d := range i.Digests {
		if strings.HasPrefix(d, ref.Name()+"@") {
			return d
		}
	}

	return i.Digests[0]
}
