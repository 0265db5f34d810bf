package podsource

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
)

// Mirror reports whether the API's pod only shows a static one: it is not run for itself.
func Mirror(pod *v1.Pod) bool {
	_, ok := pod.Annotations[v1.MirrorPodAnnotationKey]
	return ok
}

// StaticOf returns the UID of the static pod that a mirror shows.
func StaticOf(mirror *v1.Pod) types.UID {
	return types.UID(mirror.Annotations[v1.MirrorPodAnnotationKey])
}

// IsMirrorOf reports whether a pod of the API is the mirror of the static pod and stays.
func IsMirrorOf(mirror, static *v1.Pod) bool {
	return Mirror(mirror) && StaticOf(mirror) == static.UID && mirror.DeletionTimestamp == nil
}

// Shows reports whether a mirror still has something to show: its static pod is there, or not read yet, and
// nobody deletes the mirror.
func (s *Source) Shows(mirror *v1.Pod) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.expected[manifest.SourceFile] || s.expected[manifest.SourceURL] {
		return true
	}
	static := s.static[StaticOf(mirror)]
	return static != nil && FullName(static) == FullName(mirror) && IsMirrorOf(mirror, static)
}

// MirrorOf returns the API's pod in the place of a static pod's mirror, even if it shows another one, and nil
// if there is none. It is not known before the API's list is.
func (s *Source) MirrorOf(static *v1.Pod) (mirror *v1.Pod, known bool) {
	return s.mirrorOf(static), s.api.HasListed()
}

// mirrorOf returns the mirror of the static pod's name.
func (s *Source) mirrorOf(static *v1.Pod) *v1.Pod {
	if pod := s.api.Get(FullName(static)); pod != nil && Mirror(pod) {
		return pod
	}
	return nil
}

// MirrorCount returns the number of mirrors that the API has of this node.
func (s *Source) MirrorCount() int { return len(s.mirrors()) }

// mirrors returns the UIDs of all mirrors.
func (s *Source) mirrors() []types.UID {
	var out []types.UID
	for _, pod := range s.api.All() {
		if Mirror(pod) {
			out = append(out, pod.UID)
		}
	}
	return out
}

// Mirrored takes the API's answer to a write of a mirror and returns the static pod with the status that it
// shows now.
func (s *Source) Mirrored(static, mirror *v1.Pod) *v1.Pod {
	shown := static.DeepCopy()
	shown.Status = *mirror.Status.DeepCopy()

	s.mu.Lock()
	if have := s.static[static.UID]; have != nil {
		// The manifest may have changed meanwhile.
		shown.ObjectMeta, shown.Spec = have.ObjectMeta, have.Spec
		s.static[static.UID] = shown
	}

	s.mu.Unlock()

	s.api.Saw(mirror)
	return shown
}
