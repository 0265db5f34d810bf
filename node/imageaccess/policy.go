package imageaccess

import (
	"fmt"
	"slices"
	"strings"

	"github.com/distribution/reference"

	"github.com/trivet-node/trivet/node/runtime"
)

// policy is imagePullCredentialsVerificationPolicy.
type policy struct {
	name string

	// images are the names of the allowlist.
	images []string

	// prefixes are those of the allowlist, each with its slash.
	prefixes []string
}

// newPolicy validates kubelet's settings. A pattern of the allowlist is an image without tag and digest, or a
// prefix that ends in /*.
func newPolicy(name string, allowlist []string) (policy, error) {
	p := policy{name: name}
	switch name {
	case "":
		p.name = "NeverVerifyPreloadedImages"
	case "NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify":
	default:
		return p, fmt.Errorf("imagePullCredentialsVerificationPolicy %q is unknown", name)
	}

	for _, pattern := range allowlist {
		start, wildcard := strings.CutSuffix(pattern, "/*")
		start += "/"
		switch bare, err := trim(pattern); {
		case wildcard && start != "/" && !strings.ContainsAny(start, "* \t"):
			p.prefixes = append(p.prefixes, start)
		case err == nil && bare == pattern:
			p.images = append(p.images, pattern)
		default:
			return p, fmt.Errorf("preloadedImagesVerificationAllowlist: %q is neither an image without tag "+
				"and digest nor a prefix that ends in /*", pattern)
		}
	}

	return p, nil
}

// verifies reports whether pods must show that they may use the image. known says that an agent has pulled
// it.
func (p policy) verifies(name string, known bool) bool {
	switch p.name {
	case "NeverVerify":
		return false
	case "NeverVerifyPreloadedImages":
		return known
	case "NeverVerifyAllowlistedImages":
		bare, err := trim(name)
		if err != nil {
			bare = name
		}

		begins := func(prefix string) bool { return strings.HasPrefix(bare, prefix) }
		return !slices.Contains(p.images, bare) && !slices.ContainsFunc(p.prefixes, begins)
	}

	return true
}

// trim removes tag and digest from an image's name. It adds no registry to a short name: kubelet's records
// have names as pods have them.
func trim(name string) (string, error) {
	parsed, err := reference.Parse(name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", name, err)
	}

	if d, ok := parsed.(reference.Digested); ok {
		name = strings.TrimSuffix(name, "@"+d.Digest().String())
	}
	if t, ok := parsed.(reference.Tagged); ok {
		name = strings.TrimSuffix(name, ":"+t.Tag())
	}

	return name, nil
}

// normal is the full name of an image, by which runtimes list it. It is empty for what is not a name.
func normal(name string) string {
	named, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return ""
	}

	// Beside a digest a tag means nothing.
	if d, ok := named.(reference.Digested); ok {
		return named.Name() + "@" + d.Digest().String()
	}
	return reference.TagNameOnly(named).String()
}

// names are the full names of an image.
func names(image *runtime.Image) map[string]bool {
	out := map[string]bool{}
	for _, n := range slices.Concat(image.RepoTags, image.RepoDigests) {
		if full := normal(n); full != "" {
			out[full] = true
		}
	}
	return out
}
