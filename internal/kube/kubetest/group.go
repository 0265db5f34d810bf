package kubetest

import (
	"net/http"
	"strings"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// Serve has a server say in which versions it serves a group; without it a group is not known. Objects are
// kept in any case: those of another version are not found by calls that are to fail so (FailOn).
func Serve(s *Server, group string, versions ...string) {
	s.groups.mu.Lock()
	defer s.groups.mu.Unlock()
	s.groups.versions[group] = versions
}

// groups are the versions of groups.
type groups struct {
	mu       sync.Mutex
	versions map[string][]string
}

// isFor reports whether a request is for the versions of a group, not for objects.
func (*groups) isFor(r *http.Request) bool {
	group, isNamed := strings.CutPrefix(r.URL.Path, "/apis/")
	return isNamed && !strings.Contains(group, "/")
}

func (g *groups) serve(w http.ResponseWriter, r *http.Request) {
	group := strings.TrimPrefix(r.URL.Path, "/apis/")
	g.mu.Lock()
	versions := g.versions[group]
	g.mu.Unlock()
	if len(versions) == 0 {
		refuse(w, apierrors.NewNotFound(schema.GroupResource{Group: group}, group))
		return
	}

	out := metav1.APIGroup{
		TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"},
		Name:     group,
	}
	for _, version := range versions {
		out.Versions = append(out.Versions, metav1.GroupVersionForDiscovery{
			GroupVersion: group + "/" + version,
			Version:      version,
		})
	}
	write(w, http.StatusOK, out)
}
