package podsource

import (
	"maps"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/queue"
)

// annotationSeen is when the agent saw a static pod first, kubelet's name.
const annotationSeen = "kubernetes.io/config.seen"

// SourceAPI is the API server among the sources of pods.
const SourceAPI = "api"

// Static reports whether the pod comes from a manifest. Pods of the API never say so: see slim.
func Static(pod *v1.Pod) bool { return SourceOf(pod.Annotations) != SourceAPI }

// SourceOf returns, from the annotations of a pod or its sandbox, where the pod came from: SourceAPI,
// manifest.SourceFile or manifest.SourceURL.
func SourceOf(annotations map[string]string) string {
	if manifest.IsStatic(annotations) {
		return annotations[manifest.AnnotationSource]
	}
	return SourceAPI
}

// FullName is what is unique among the pods of the cluster, and the same for a static pod and its mirror.
func FullName(pod *v1.Pod) string { return pod.Namespace + "/" + pod.Name }

// expect says that pods will come from a source: until they have, one that is absent may only be unknown.
func (s *Source) expect(source string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.expected[source] = true
}

// Settled reports whether all pods of a source are known, so that one which is absent has gone.
func (s *Source) Settled(source string) bool {
	if source == SourceAPI {
		return s.api.HasListed()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.expected[source]
}

// Complete reports whether all pods of all sources are known.
func (s *Source) Complete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.api.HasListed() && len(s.expected) == 0
}

// setStatic makes the pods of a source those found, the later of two with one full name.
func (s *Source) setStatic(source string, found []*v1.Pod) {
	wanted := s.unique(source, found)
	var changed []types.UID

	s.mu.Lock()
	for uid, pod := range wanted {
		if old := s.static[uid]; old == nil || !same(old, pod) {
			s.static[uid] = s.next(old, pod)
			changed = append(changed, uid)
		}
	}

	for uid, old := range s.static {
		if SourceOf(old.Annotations) == source && wanted[uid] == nil {
			delete(s.static, uid)
			changed = append(changed, uid)
		}
	}

	// A mirror may show a pod that has gone.
	if s.expected[source] || len(changed) > 0 {
		delete(s.expected, source)
		changed = append(changed, s.mirrors()...)
	}

	s.mu.Unlock()

	for _, uid := range changed {
		s.looks.Look(uid, queue.PodChanged)
	}
}

// unique returns the pods by UID, of two with one full name the later.
func (s *Source) unique(source string, found []*v1.Pod) map[types.UID]*v1.Pod {
	byName, byUID := map[string]*v1.Pod{}, map[types.UID]*v1.Pod{}
	for _, pod := range found {
		name := FullName(pod)
		if other := byName[name]; other != nil {
			s.problem(source, "two manifests have a pod "+name+": the later one counts")
			delete(byUID, other.UID)
		}
		byName[name], byUID[pod.UID] = pod, pod
	}
	return byUID
}

// same reports whether a manifest still says the same. It can say something else under one UID only if it
// gives that itself.
func same(old, pod *v1.Pod) bool {
	had := maps.Clone(old.Annotations)
	delete(had, annotationSeen)
	return equality.Semantic.DeepEqual(old.Spec, pod.Spec) && maps.Equal(old.Labels, pod.Labels) &&
		maps.Equal(had, pod.Annotations)
}

// next makes pod the next version of old, or the first one. The caller holds the lock.
func (s *Source) next(old, pod *v1.Pod) *v1.Pod {
	if old == nil {
		pod.Annotations[annotationSeen] = time.Now().Format(time.RFC3339Nano)
		return s.recall(pod)
	}
	pod.Annotations[annotationSeen] = old.Annotations[annotationSeen]
	pod.Generation, pod.Status = old.Generation+1, old.Status
	return pod
}

// recall gives a static pod of an earlier life of the agent what the API shows of it: since when it runs, and
// how often it was restarted. That it had ended is not taken over: what a manifest says runs.
func (s *Source) recall(static *v1.Pod) *v1.Pod {
	mirror := s.mirrorOf(static)
	if mirror == nil || !IsMirrorOf(mirror, static) || static.Status.StartTime != nil {
		return static
	}
	if phase := mirror.Status.Phase; phase == v1.PodSucceeded || phase == v1.PodFailed {
		return static
	}
	known := *static
	known.Status = *mirror.Status.DeepCopy()
	return &known
}

// maxProblems bounds what is remembered of problems.
const maxProblems = 1000

// problems are what was wrong with manifests. They are read periodically, and each problem is logged once.
type problems struct {
	mu     sync.Mutex
	logged map[string]bool
}

// first reports whether a problem of a place is new.
func (p *problems) first(place, what string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := place + "\x00" + what
	if p.logged[key] {
		return false
	}
	if len(p.logged) > maxProblems || p.logged == nil {
		p.logged = map[string]bool{}
	}
	p.logged[key] = true
	return true
}

// problem logs what is wrong at a place, once.
func (s *Source) problem(place, what string) {
	if s.problems.first(place, what) {
		s.log.Warn("manifest of a static pod", "place", place, "problem", what)
	}
}
