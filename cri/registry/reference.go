// Package registry reads images from registries by the OCI distribution specification (1.1, pull side):
// references, containerd's hosts.toml, authentication, manifests, and blobs that go on after a broken
// connection. It stores nothing and verifies manifests only; the reader of a blob verifies it.
package registry

import (
	"errors"
	"fmt"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
)

// Reference names an image in a registry. The short forms of Docker are written out: "busybox" is
// docker.io/library/busybox:latest.
type Reference struct {
	Host       string        // of the registry, such as docker.io or localhost:5000
	Repository string        // such as library/busybox
	Tag        string        // "" when there is a digest and no tag
	Digest     digest.Digest // "" when only a tag was given
}

// ParseReference reads "name[:tag][@digest]".
func ParseReference(text string) (Reference, error) {
	named, err := reference.ParseDockerRef(text)
	if err != nil {
		return Reference{}, fmt.Errorf("image reference %q: %w", text, err)
	}

	r := Reference{Host: reference.Domain(named), Repository: reference.Path(named)}
	if d, ok := named.(reference.Digested); ok {
		r.Digest = d.Digest()
		if !r.Digest.Algorithm().Available() {
			return Reference{}, fmt.Errorf("image reference %q: unknown digest algorithm %s",
				text, r.Digest.Algorithm())
		}

		return r, nil
	}

	t, ok := named.(reference.Tagged)
	if !ok {
		return Reference{}, fmt.Errorf("image reference %q: %w", text, errors.New("neither tag nor digest"))
	}

	r.Tag = t.Tag()
	return r, nil
}

// Name returns the reference without tag and digest.
func (r Reference) Name() string { return r.Host + "/" + r.Repository }

// String returns the reference with its digest or, if it does not have one, its tag.
func (r Reference) String() string {
	if r.Digest != "" {
		return r.Name() + "@" + r.Digest.String()
	}
	return r.Name() + ":" + r.Tag
}

// identifier returns what a manifest is asked for by: the digest or the tag.
func (r Reference) identifier() string {
	if r.Digest != "" {
		return r.Digest.String()
	}
	return r.Tag
}
