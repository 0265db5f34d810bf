package imageaccess

import (
	"cmp"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of a record. What does not fit is forgotten, so that it is verified again.
const (
	// maxSecrets is per name: as many as kubelet adds without a pull.
	maxSecrets = 100
	maxNames   = 100
)

// Secret says where credentials are from, and what they were. The files have it as kubelet's ImagePullSecret.
type Secret struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Hash      string `json:"credentialHash"`
}

func (s Secret) same(t Secret) bool { return s.compare(t) == 0 }

// compare has the order of kubelet's files. The content does not count.
func (s Secret) compare(t Secret) int {
	return cmp.Or(
		cmp.Compare(s.Namespace, t.Namespace),
		cmp.Compare(s.Name, t.Name),
		cmp.Compare(s.UID, t.UID),
	)
}

// account is a service account whose token a credential provider got. It is kept for kubelet.
type account struct {
	UID       string `json:"uid"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
}

// grant is who may use an image by one name.
type grant struct {
	Secrets  []Secret  `json:"kubernetesSecrets,omitempty"`
	Accounts []account `json:"kubernetesServiceAccounts,omitempty"`
	Everyone bool      `json:"nodePodsAccessible,omitempty"`
}

// fits reports whether a pod's secret is one that the image was pulled with: the same object, whatever is in
// it by now, or the same content.
func (g grant) fits(s Secret) bool {
	return slices.ContainsFunc(g.Secrets, func(have Secret) bool {
		return have.same(s) || (have.Hash != "" && have.Hash == s.Hash)
	})
}

// typed is what each of kubelet's files begins with.
type typed struct {
	Kind       string `json:"kind"`
	APIVersion string `json:"apiVersion"`
}

// is lets read check what a file has said that it is.
func (t typed) is() typed { return t }

// record is kubelet's ImagePulledRecord.
type record struct {
	typed
	Updated  metav1.Time `json:"lastUpdatedTime"`
	ImageRef string      `json:"imageRef"`

	// Grants are by the image's name without tag and digest.
	Grants map[string]grant `json:"credentialMapping,omitempty"`
}

// intent is kubelet's ImagePullIntent.
type intent struct {
	typed
	Image string `json:"image"`
}

// add merges a grant and reports whether that changed anything.
func (r *record) add(name string, g grant) bool {
	have, found := r.Grants[name]
	if have.Everyone {
		return false
	}

	if g.Everyone {
		have = grant{Everyone: true}
	} else {
		have.Secrets = slices.Clone(have.Secrets)
		if !have.merge(g.Secrets) {
			return false
		}
	}

	if r.Grants == nil {
		r.Grants = map[string]grant{}
	}

	if !found {
		r.makeRoom()
	}

	r.Grants[name] = have
	return true
}

// makeRoom forgets names, whichever, until one more fits.
func (r *record) makeRoom() {
	for other := range r.Grants {
		if len(r.Grants) < maxNames {
			return
		}

		delete(r.Grants, other)
	}
}

// merge adds secrets, or the new content of those that are there, and keeps them in kubelet's order.
func (g *grant) merge(secrets []Secret) (changed bool) {
	for _, s := range secrets {
		if slices.Contains(g.Secrets, s) {
			continue
		}

		changed = true
		g.Secrets = slices.DeleteFunc(g.Secrets, s.same)
		if len(g.Secrets) >= maxSecrets {
			g.Secrets = g.Secrets[1:]
		}

		g.Secrets = append(g.Secrets, s)
	}

	slices.SortFunc(g.Secrets, Secret.compare)
	return changed
}
