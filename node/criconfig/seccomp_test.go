package criconfig

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// A profile of type Localhost whose name is missing must not mean none (CVE-2023-2431). The API server
// refuses some of these; files of static pods do not pass by it.
func TestSeccompProfileWithoutANameIsNotUnconfined(t *testing.T) {
	n := node
	n.SeccompRoot = "/seccomp"
	for _, profile := range []*v1.SeccompProfile{
		{Type: v1.SeccompProfileTypeLocalhost},
		{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: new("")},
		{Type: "localhost", LocalhostProfile: new("strict.json")},
		{},
	} {
		p := podOf(func(s *v1.PodSpec) {
			s.Containers[0].SecurityContext = &v1.SecurityContext{SeccompProfile: profile}
		})
		got, err := CreateContainer(n, p, Container{Spec: &p.Spec.Containers[0]})
		if err != nil {
			continue
		}

		s := got.Linux.SecurityContext.Seccomp
		if s == nil || s.ProfileType == cri.SecurityProfile_Unconfined ||
			s.ProfileType == cri.SecurityProfile_Localhost && s.LocalhostRef == "" {
			t.Errorf("%v becomes %v", profile, s)
		}
	}
}
