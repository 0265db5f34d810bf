package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// manifest is an image manifest, an index, or Docker's schema 2 forms of the two: their fields have the same names.
type manifest struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        ocispec.Descriptor   `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`
}

const (
	maxLayers = 500 // overlayfs takes no more
	maxConfig = 8 << 20
)

func parseManifest(content []byte) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(content, &m); err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return m, fmt.Errorf("manifest has schema version %d; only 2 is known", m.SchemaVersion)
	}
	if (len(m.Manifests) > 0) == (m.Config.Digest != "") {
		return m, errors.New("manifest is neither an image nor an index")
	}
	if len(m.Layers) > maxLayers {
		return m, fmt.Errorf("image has %d layers; overlayfs takes %d", len(m.Layers), maxLayers)
	}
	for _, d := range append(append([]ocispec.Descriptor{}, m.Layers...), m.Manifests...) {
		if err := checkDescriptor(d); err != nil {
			return m, err
		}
	}
	if m.Config.Digest == "" {
		return m, nil
	}
	if m.Config.Size > maxConfig {
		return m, fmt.Errorf("configuration %s has %d bytes; at most %d are read", m.Config.Digest, m.Config.Size, maxConfig)
	}
	return m, checkDescriptor(m.Config)
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %q in manifest: %w", d.Digest, err)
	}
	if d.Size < 0 {
		return fmt.Errorf("blob %s has size %d in the manifest", d.Digest, d.Size)
	}
	return nil
}

// choose picks the manifest of this machine's platform out of an index.
func choose(list []ocispec.Descriptor) (ocispec.Descriptor, error) {
	best, score := ocispec.Descriptor{}, 0
	var offered []string
	for _, d := range list {
		p := d.Platform
		if p == nil {
			if len(list) == 1 {
				return d, nil
			}
			continue
		}
		offered = append(offered, strings.TrimSuffix(p.OS+"/"+p.Architecture+"/"+p.Variant, "/"))
		if got := fit(p); got > score {
			best, score = d, got
		}
	}
	if score == 0 {
		return best, fmt.Errorf("no image for linux/%s; there are %s", runtime.GOARCH, strings.Join(offered, ", "))
	}
	return best, nil
}

// fit is 0 for a platform that cannot run here, and more the better it fits. The variant counts only on arm: v8 is what arm64 is, and
// 32-bit arm runs its own version and older ones.
func fit(p *ocispec.Platform) int {
	if p.OS != "linux" || p.Architecture != runtime.GOARCH {
		return 0
	}
	switch {
	case p.Variant == "" || p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1":
		return 10
	case p.Architecture == "arm" && len(p.Variant) == 2 && p.Variant <= "v7":
		return int(p.Variant[1] - '0')
	}
	return 0
}

// parseConfig reads an image's configuration and names its layers: each by the hex of its chain ID, so that a layer directory depends on
// the layers below as the image does.
func parseConfig(content []byte, layers int) (config ocispec.Image, chain []string, err error) {
	if err := json.Unmarshal(content, &config); err != nil {
		return config, nil, fmt.Errorf("image configuration: %w", err)
	}
	if config.OS != "" && config.OS != "linux" || config.Architecture != "" && config.Architecture != runtime.GOARCH {
		return config, nil, fmt.Errorf("image is for %s/%s, this node is linux/%s", config.OS, config.Architecture, runtime.GOARCH)
	}
	ids := config.RootFS.DiffIDs
	if len(ids) != layers {
		return config, nil, fmt.Errorf("image has %d layers, its configuration names %d", layers, len(ids))
	}
	for _, d := range ids {
		if err := d.Validate(); err != nil {
			return config, nil, fmt.Errorf("layer digest %q in the image configuration: %w", d, err)
		}
	}
	for _, d := range identity.ChainIDs(append([]digest.Digest{}, ids...)) {
		chain = append(chain, d.Encoded())
	}
	return config, chain, nil
}
