package image

import (
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/trivet-node/trivet/cri/image/platform"
)

// manifest is an image manifest, an index, or one of Docker's schema 2 forms of the two, whose fields have
// the same names.
type manifest struct {
	SchemaVersion int                  `json:"schemaVersion"`
	MediaType     string               `json:"mediaType"`
	Config        ocispec.Descriptor   `json:"config"`
	Layers        []ocispec.Descriptor `json:"layers"`
	Manifests     []ocispec.Descriptor `json:"manifests"`

	digest digest.Digest // of the manifest itself
}

const (
	maxLayers = 500 // the most that overlayfs takes
	maxConfig = 8 << 20
)

func parseManifest(content []byte, d digest.Digest) (manifest, error) {
	m := manifest{digest: d}
	if err := json.Unmarshal(content, &m); err != nil {
		return m, fmt.Errorf("manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return m, fmt.Errorf("manifest has schema version %d; only 2 is known", m.SchemaVersion)
	}

	// A document that is both would be one thing to this reader and another to the next.
	if (len(m.Manifests) > 0) == (m.Config.Digest != "") {
		return m, errors.New("manifest is neither an image nor an index")
	}
	if len(m.Layers) > maxLayers {
		return m, fmt.Errorf("image has %d layers; overlayfs takes %d", len(m.Layers), maxLayers)
	}

	// Digests become paths and addresses, so they are checked before anything uses them.
	for _, d := range append(append([]ocispec.Descriptor{}, m.Layers...), m.Manifests...) {
		if err := checkDescriptor(d); err != nil {
			return m, err
		}
	}

	if m.Config.Digest == "" {
		return m, nil
	}

	if m.Config.Size > maxConfig {
		return m, fmt.Errorf("configuration %s has %d bytes; at most %d are read",
			m.Config.Digest, m.Config.Size, maxConfig)
	}

	return m, checkDescriptor(m.Config)
}

func checkDescriptor(d ocispec.Descriptor) error {
	if err := d.Digest.Validate(); err != nil {
		return fmt.Errorf("digest %s in manifest: %w", quote(d.Digest.String()), err)
	}
	if d.Size < 0 {
		return fmt.Errorf("blob %s has size %d in the manifest", d.Digest, d.Size)
	}
	return nil
}

// parseConfig reads an image's configuration and returns the names of its layers: the hex of their chain IDs,
// because the files of a layer directory depend on the layers below. The image must be for the platform want.
func parseConfig(
	content []byte, layers int, want ocispec.Platform,
) (config ocispec.Image, chain []string, err error) {
	if err := json.Unmarshal(content, &config); err != nil {
		return config, nil, fmt.Errorf("image configuration: %w", err)
	}

	p := platform.Normalize(config.Platform)
	if p.OS != want.OS || p.Architecture != want.Architecture {
		err := fmt.Errorf("image is for %s, not for %s", platform.Name(p), platform.Name(want))
		return config, nil, err
	}

	ids := config.RootFS.DiffIDs
	if len(ids) != layers {
		return config, nil, fmt.Errorf("image has %d layers, its configuration names %d", layers, len(ids))
	}

	for _, d := range ids {
		if err := d.Validate(); err != nil {
			err = fmt.Errorf("layer digest %s in the image configuration: %w", quote(d.String()), err)
			return config, nil, err
		}
	}

	return config, chainOf(ids), nil
}

func chainOf(ids []digest.Digest) (chain []string) {
	for _, d := range identity.ChainIDs(append([]digest.Digest{}, ids...)) {
		chain = append(chain, d.Encoded())
	}
	return chain
}

// quote returns a text of a registry as an error may show it: in one line, and not longer than 100 bytes.
func quote(text string) string {
	const most = 100
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strconv.Quote(text)
}
