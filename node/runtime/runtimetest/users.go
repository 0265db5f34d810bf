package runtimetest

import (
	"fmt"
	"slices"

	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Mapped returns what was made with a user namespace, in order: "sandbox", "container" or "mount", and the
// first ID on the host.
func (s *Server) Mapped() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.record.mapped)
}

// noteUsers records what is made, if it has a user namespace.
func (s *Server) noteUsers(what string, options *cri.NamespaceOption) {
	if users := options.GetUsernsOptions(); len(users.GetUids()) == 1 && len(users.GetGids()) == 1 {
		s.record.mapped = append(s.record.mapped, fmt.Sprintf("%s %d", what, users.Uids[0].HostId))
	}
}
