// Package pullauth finds the registry credentials that fit an image in docker configuration files
// (config.json, .dockercfg), by kubelet's matching rules: host with * per label, optional port, and a path
// prefix; the longest match first.
package pullauth

import (
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// File is a docker configuration file: the node's own, or what is in a pull secret.
type File struct {
	Data []byte

	// Secret is the pull secret that the file is from, nil for the node's own.
	Secret *v1.Secret
}

// Credentials are what a pull presents.
type Credentials struct {
	*runtime.Auth

	// Secret is the pull secret that they are from, nil for the node's own.
	Secret *v1.Secret

	// Hash identifies the credentials in kubelet's records of pulls.
	Hash string
}

// entry is one registry's part of a docker configuration file.
type entry struct {
	Username      string `json:"username"`
	Password      string `json:"password"`
	Auth          string `json:"auth"`
	Email         string `json:"email"`
	IdentityToken string `json:"identitytoken"`
	RegistryToken string `json:"registrytoken"`
}

// match are credentials with the key of the file that fits the image.
type match struct {
	key string
	Credentials
}

// For returns the credentials for the image, the most specific first. Files that are empty or not valid are
// skipped.
func For(image string, files ...File) []Credentials {
	named, err := reference.ParseNormalizedNamed(image)
	if err != nil {
		return nil
	}

	var found []match
	for _, f := range files {
		for key, e := range parse(f.Data) {
			if !fits(key, reference.Domain(named), reference.Path(named)) {
				continue
			}
			if auth := e.config(); auth != nil {
				found = append(found, match{key, Credentials{auth, f.Secret, hash(auth, e.Email)}})
			}
		}
	}

	// The longest key is the most specific one.
	slices.SortStableFunc(found, func(a, b match) int {
		return cmp.Or(len(b.key)-len(a.key), strings.Compare(a.key, b.key))
	})

	var out []Credentials
	for _, m := range found {
		out = append(out, m.Credentials)
	}

	return out
}

// hash identifies credentials as kubelet's records do: by the SHA-256 of the JSON text of these fields in
// this order.
func hash(auth *runtime.Auth, email string) string {
	data, err := json.Marshal(struct {
		Username string `json:"username,omitempty"`
		Password string `json:"password,omitempty"`
		Email    string `json:"email,omitempty"`
	}{auth.Username, auth.Password, email})
	if err != nil {
		return ""
	}

	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// parse reads the entries of a file in the format of config.json or, with the registries at its top, of
// .dockercfg.
func parse(data []byte) map[string]entry {
	if len(data) == 0 {
		return nil
	}

	var modern struct {
		Auths map[string]entry `json:"auths"`
	}
	if json.Unmarshal(data, &modern) == nil && len(modern.Auths) > 0 {
		return modern.Auths
	}

	var old map[string]entry
	if json.Unmarshal(data, &old) != nil {
		return nil
	}

	return old
}

// config is what the entry presents to the registry, nil if it is not valid.
func (e entry) config() *runtime.Auth {
	if e.Auth != "" {
		raw, err := base64.StdEncoding.DecodeString(strings.TrimSpace(e.Auth))
		if err != nil {
			return nil
		}

		user, password, ok := strings.Cut(string(raw), ":")
		if !ok {
			return nil
		}

		e.Username = user
		e.Password = strings.TrimRight(password, "\x00")
	}

	return &runtime.Auth{
		Username:      e.Username,
		Password:      e.Password,
		IdentityToken: e.IdentityToken,
		RegistryToken: e.RegistryToken,
	}
}

// fits reports whether a key of a docker configuration, HOST[:PORT][/PATH] with or without a scheme, is for
// the repository.
func fits(key, host, repository string) bool {
	if !strings.Contains(key, "://") {
		key = "https://" + key
	}

	u, err := url.Parse(key)
	if err != nil || u.Host == "" {
		return false
	}
	if u.Host == "index.docker.io" {
		return host == "docker.io"
	}
	if !sameHost(u.Host, host) {
		return false
	}

	prefix := strings.Trim(u.Path, "/")
	if prefix == "" || prefix == "v1" || prefix == "v2" {
		return true
	}

	return repository == prefix || strings.HasPrefix(repository, prefix+"/")
}

// sameHost compares label by label; a label of the pattern may have wildcards.
func sameHost(pattern, host string) bool {
	patterns := strings.Split(pattern, ".")
	labels := strings.Split(host, ".")
	if len(patterns) != len(labels) {
		return false
	}

	for i := range patterns {
		if ok, err := path.Match(patterns[i], labels[i]); err != nil || !ok {
			return false
		}
	}

	return true
}
