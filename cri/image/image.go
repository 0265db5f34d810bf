// Package image keeps container images on disk: it pulls them (fetch, verify, decompress and unpack in one pass, layers in parallel), finds
// them by name, digest or ID, and removes them with every layer that nothing else needs. Layers are overlayfs lower directories; no
// compressed blob is kept. It knows neither CRI nor mounts; cri/rootfs mounts the layers.
package image

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// ErrNotFound is returned for an image that is not in the store.
var ErrNotFound = errors.New("image not found")

// Image is an image in the store. It is a copy: changing it changes nothing.
type Image struct {
	ID      string   // digest of the configuration, "sha256:..."
	Tags    []string // full names, "docker.io/library/busybox:1", sorted
	Digests []string // "docker.io/library/busybox@sha256:...", as pulled, sorted
	Size    int64    // bytes that its layers take unpacked
	Pinned  bool     // garbage collection should keep it; Store.Remove does as it is told

	Config    ocispec.Image // parsed configuration
	RawConfig []byte        // as pulled
	Layers    []string      // directories, the lowest first
	Chain     []string      // names of the layers, the lowest first: what Store.Hold takes
}

// record is an image on disk: IMAGES/<hex of the ID>.json.
type record struct {
	ID      string
	Config  []byte
	Chain   []string             // chain IDs (OCI image-spec config.md) of the layers, as hex, the lowest first
	Tags    map[string]time.Time // when each was last pulled: in a tag that two records claim, the later wins
	Digests []string
	// Synced says that the layers are safe on the disk. Until then, the record counts only for the boot that wrote it.
	Synced bool
	Boot   string

	arrival int64 // counts pulls: tells this record from one of the same image that was removed and pulled again
}

func (r *record) copy() *record {
	c := *r
	c.Tags, c.Digests = maps.Clone(r.Tags), slices.Clone(r.Digests)
	if c.Tags == nil {
		c.Tags = make(map[string]time.Time)
	}
	return &c
}

func hexOf(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		return id
	}
	return hex
}
