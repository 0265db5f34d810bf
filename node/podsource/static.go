package podsource

import (
	"maps"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
)

// annotationSeen is when the agent saw a static pod first, kubelet's name.
const annotationSeen = "kubernetes.io/config.seen"

// SourceAPI is the API server among the sources of pods.
const SourceAPI = "api"

// Static reports whether the pod comes from a manifest. That no pod of the API says so of itself is seen to
// where they come in.
func Static(pod *v1.Pod) bool { return SourceOf(pod.Annotations) != SourceAPI }

// SourceOf tells from the annotations of a pod or its sandbox where the pod came from.
func SourceOf(annotations map[string]string) string {
	if manifest.IsStatic(annotations) {
		return annotations[manifest.AnnotationSource]
	}
	return SourceAPI
}

// FullName is what is unique among the pods of the cluster, and of a static pod and its mirror the same.
func FullName(pod *v1.Pod) string { return pod.Namespace + "/" + pod.Name }

// Expect says that pods will come from a source: until they have, one that is absent may only be unknown.
func (s *Source) Expect(source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected[source] = true
}

// Settled reports whether all pods of a source are known, so that one which is absent has gone.
func (s *Source) Settled(source string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.expected[source]
}

// Complete reports whether all pods of all sources are known.
func (s *Source) Complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.expected) == 0
}

// tellOnce logs once what is wrong at a place, which is looked at again and again.
func (s *Source) tellOnce(place, what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if told := place + "\x00" + what; !s.told[told] {
		if len(s.told) > maxTold {
			clear(s.told)
		}
		s.told[told] = true
		s.log.Warn("manifest of a static pod", "place", place, "problem", what)
	}
}

// maxTold bounds what is remembered of problems.
const maxTold = 1000

// setStatic makes the pods of a source those found, the later of two with one full name.
func (s *Source) setStatic(source string, found []*v1.Pod) {
	byName, byUID := map[string]*v1.Pod{}, map[types.UID]*v1.Pod{}
	for _, pod := range found {
		if other := byName[FullName(pod)]; other != nil {
			s.tellOnce(source, "two manifests have a pod "+FullName(pod)+": the later one counts")
			delete(byUID, other.UID)
		}

		byName[FullName(pod)], byUID[pod.UID] = pod, pod
	}

	var changed []types.UID
	s.mu.Lock()
	for uid, pod := range byUID {
		if old := s.static[uid]; old == nil || !same(old, pod) {
			s.static[uid] = s.succeed(old, pod)
			changed = append(changed, uid)
		}
	}

	for uid, old := range s.static {
		if SourceOf(old.Annotations) == source && byUID[uid] == nil {
			delete(s.static, uid)
			changed = append(changed, uid)
		}
	}

	if first := s.expected[source]; first || len(changed) > 0 {
		delete(s.expected, source)

		// one may show what is no more
		changed = append(changed, s.mirrors()...)
	}

	s.mu.Unlock()

	for _, uid := range changed {
		s.notify(uid)
	}
}

// same reports whether a manifest still says the same. It can say something else under one UID only if it
// gives that itself.
func same(old, pod *v1.Pod) bool {
	had := maps.Clone(old.Annotations)
	delete(had, annotationSeen)
	return equality.Semantic.DeepEqual(old.Spec, pod.Spec) && maps.Equal(old.Labels, pod.Labels) &&
		maps.Equal(had, pod.Annotations)
}

// succeed makes pod the next version of old, or the first one. The caller holds the lock.
func (s *Source) succeed(old, pod *v1.Pod) *v1.Pod {
	if old == nil {
		pod.Annotations[annotationSeen] = time.Now().Format(time.RFC3339Nano)
		return s.recall(pod)
	}
	pod.Annotations[annotationSeen] = old.Annotations[annotationSeen]
	pod.Generation, pod.Status = old.Generation+1, old.Status
	return pod
}

// recall gives a static pod of an earlier life of the agent what the API shows of it: since when it runs, and
// how often it was restarted. That it had ended is not taken over: what a manifest says runs. The caller
// holds the lock.
func (s *Source) recall(static *v1.Pod) *v1.Pod {
	mirror := s.mirrorOf(static)
	if mirror == nil || !shows(mirror, static) || static.Status.StartTime != nil {
		return static
	}
	if phase := mirror.Status.Phase; phase == v1.PodSucceeded || phase == v1.PodFailed {
		return static
	}
	known := *static
	known.Status = *mirror.Status.DeepCopy()
	return &known
}
