// Package image keeps container images on disk: it pulls them (fetch, verify, decompress and unpack in one
// pass, layers in parallel), finds them by name, digest or ID, and removes them with every layer that nothing
// else needs. Layers are overlayfs lower directories; no compressed blob is kept. It knows neither CRI nor
// mounts; cri/rootfs mounts the layers.
package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/registry"
)

// ErrNotFound is returned for an image that is not in the store.
var ErrNotFound = errors.New("image not found")

// Image is an image in the store.
type Image struct {
	ID      string   // digest of the configuration (of the manifest if it is an artifact), "sha256:..."
	Tags    []string // full names, "docker.io/library/busybox:1", sorted
	Digests []string // "docker.io/library/busybox@sha256:...", the last pulled first
	Size    int64    // bytes that its layers take unpacked, and its configuration
	Pinned  bool     // garbage collection should keep it; Store.Remove does as it is told

	Artifact  bool          // an OCI artifact: files to mount, nothing to run
	Config    ocispec.Image // parsed configuration; not to be changed
	RawConfig []byte        // as pulled
	Layers    []string      // directories, the lowest first
	Chain     []string      // names of the layers, the lowest first: what Store.Hold takes
}

// record is an image on disk: IMAGES/<hex of the ID>.json.
type record struct {
	ID     string
	Config []byte
	// chain IDs (OCI image-spec config.md) of the layers, as hex, the lowest first
	Chain   []string
	Tags    map[string]time.Time // when each was last pulled: in a tag that two records claim, the later wins
	Digests []string             // the last pulled last
	// Synced says that the layers are safe on the disk. Until then, the record counts only for the boot that
	// wrote it.
	Synced bool
	Boot   string

	Pinned   bool // by its import
	Artifact bool // Config is no configuration, and the ID is the digest of the manifest

	parsed *ocispec.Image
	// counts pulls: tells this record from one of the same image that was removed and pulled again
	arrival int64
}

func (r *record) copy() *record {
	c := *r
	c.Tags, c.Digests = maps.Clone(r.Tags), slices.Clone(r.Digests)
	if c.Tags == nil {
		c.Tags = make(map[string]time.Time)
	}
	return &c
}

// parse reads the configuration once: with one of megabytes, each look at the image would cost a tenth of a
// second.
func (r *record) parse() error {
	if r.parsed != nil {
		return nil
	}
	r.parsed = new(ocispec.Image)
	if err := json.Unmarshal(r.Config, r.parsed); err != nil {
		return fmt.Errorf("configuration of image %s: %w", r.ID, err)
	}
	return nil
}

// maxDigests bounds the names that an image gets when a registry says another digest at each pull.
const maxDigests = 64

func (r *record) addDigest(name string) {
	r.Digests = slices.DeleteFunc(r.Digests, func(other string) bool { return other == name })
	r.Digests = append(r.Digests, name)
	r.Digests = r.Digests[max(0, len(r.Digests)-maxDigests):]
}

// Reference is the image's name with the digest of the manifest, "docker.io/library/busybox@sha256:...", for
// one who asked for it by name: of the repository that the name says, if it was pulled from there. It is the
// ID if the image has no such name.
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

func hexOf(id string) string {
	_, hex, ok := strings.Cut(id, ":")
	if !ok {
		return id
	}
	return hex
}
