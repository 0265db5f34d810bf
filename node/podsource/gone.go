package podsource

import (
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// goneGrace is how long the watch may take to show that a pod has gone.
const goneGrace = 5 * time.Second

// Gone says that the API has answered that a pod is not there any more. If the watch does not show the same
// soon, it has missed it, and the pods are listed again.
func (s *Source) Gone(pod types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.gone) == 0 {
		time.AfterFunc(goneGrace, s.checkGone)
	}
	s.gone = append(s.gone, pod)
}

// checkGone has the pods listed again if one of those that have gone is still known.
func (s *Source) checkGone() {
	s.mu.Lock()
	gone := s.gone
	s.gone = nil
	s.mu.Unlock()
	if slices.ContainsFunc(gone, s.lingers) {
		s.api.Relist()
	}
}

// lingers reports whether a pod is known that nothing holds back.
func (s *Source) lingers(pod types.UID) bool {
	for _, p := range s.api.By(string(pod)) {
		return len(p.Finalizers) == 0
	}
	return false
}
