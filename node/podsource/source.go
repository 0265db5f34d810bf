// Package podsource knows the pods that this node should run: those the API has bound to it, by one
// list-watch that resumes and relists by itself, and static ones from manifests. It keeps the newest version
// of each pod by UID, so a pod recreated under its name is another pod, and a late event never replaces what
// is already known to be newer.
package podsource

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"github.com/trivet-node/trivet/node/manifest"
)

// Source is the set of desired pods. Pods it returns are shared: do not change them.
type Source struct {
	notify func(types.UID)
	log    *slog.Logger

	mu       sync.Mutex            // guards the rest
	pods     map[types.UID]*v1.Pod // of the API, mirrors included
	static   map[types.UID]*v1.Pod
	expected map[string]bool // sources that have not said yet which pods they have
	synced   chan struct{}   // closed when the API has
	told     map[string]bool // complaints about manifests
}

// New returns an empty source. notify is called with the UID of each pod that appeared, changed or went; it
// must not block.
func New(notify func(types.UID), log *slog.Logger) *Source {
	return &Source{
		notify:   notify,
		log:      log,
		pods:     map[types.UID]*v1.Pod{},
		static:   map[types.UID]*v1.Pod{},
		expected: map[string]bool{SourceAPI: true},
		synced:   make(chan struct{}),
		told:     map[string]bool{},
	}
}

// Watch follows the pods bound to the node until ctx ends. An expired resource version leads to a new list.
func (s *Source) Watch(ctx context.Context, core rest.Interface, node string) {
	lw := cache.NewFilteredListWatchFromClient(core, "pods", metav1.NamespaceAll, func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", node).String()
	})
	cache.NewReflectorWithOptions(
		lw,
		&v1.Pod{},
		(*apiStore)(s),
		cache.ReflectorOptions{Name: "pods of this node"},
	).RunWithContext(ctx)
}

// Synced is closed when the API's list is known: before, a pod that is absent may only be unknown.
func (s *Source) Synced() <-chan struct{} { return s.synced }

// Get returns the newest version of a pod, or nil when the node has no such pod.
func (s *Source) Get(uid types.UID) *v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()
	if static := s.static[uid]; static != nil {
		return static
	}
	return s.pods[uid]
}

// List returns all pods that run here, the oldest first. Mirrors are not among them.
func (s *Source) List() []*v1.Pod {
	s.mu.Lock()
	defer s.mu.Unlock()

	all := slices.AppendSeq(slices.Collect(maps.Values(s.static)), maps.Values(s.pods))
	all = slices.DeleteFunc(all, Mirror)
	return slices.SortedFunc(slices.Values(all), func(a, b *v1.Pod) int {
		if c := a.CreationTimestamp.Compare(b.CreationTimestamp.Time); c != 0 {
			return c
		}
		if a.UID < b.UID {
			return -1
		}

		return 1
	})
}

// Saw takes the API's answer to a write: it may be newer than the watch. A pod that is not known is not
// added: it has gone.
func (s *Source) Saw(pod *v1.Pod) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.pods[pod.UID]; old != nil && newer(pod, old) {
		s.pods[pod.UID] = strip(pod)
	}
}

// newer orders two versions of one pod by resource version (KEP-5504: comparable since 1.35). Versions that
// do not compare are taken as they come.
func newer(a, b *v1.Pod) bool {
	c, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || c > 0
}

// strip drops what the agent never reads; it is half of a pod's size. A pod of the API is not static,
// whatever its annotations say: anybody may write them, and mirrors have those of their static pods.
func strip(pod *v1.Pod) *v1.Pod {
	pod.ManagedFields = nil
	if Static(pod) {
		pod.Annotations[manifest.AnnotationSource] = SourceAPI
	}
	return pod
}

// apiStore is the source as the reflector sees it.
type apiStore Source

func (a *apiStore) put(obj any) error {
	pod, ok := obj.(*v1.Pod)
	if !ok {
		return fmt.Errorf("watch of pods: unexpected %T", obj)
	}

	a.mu.Lock()
	old := a.pods[pod.UID]
	stale := old != nil && !newer(pod, old)
	if !stale {
		a.pods[pod.UID] = strip(pod)
	}

	changed := a.concerned(pod)
	a.mu.Unlock()
	if !stale {
		a.tell(changed)
	}

	return nil
}

// concerned are the pods that are worth a look when one of the API's has changed: a mirror's static pod, too.
// The caller holds the lock.
func (a *apiStore) concerned(pod *v1.Pod) []types.UID {
	out := []types.UID{pod.UID}
	if !Mirror(pod) {
		return out
	}
	for uid, static := range a.static {
		if FullName(static) == FullName(pod) {
			a.static[uid] = (*Source)(a).recall(static)
			out = append(out, uid)
		}
	}
	return out
}

func (a *apiStore) tell(changed []types.UID) {
	for _, uid := range changed {
		a.notify(uid)
	}
}

// Add is called by the reflector.
func (a *apiStore) Add(obj any) error { return a.put(obj) }

// Update is called by the reflector.
func (a *apiStore) Update(obj any) error { return a.put(obj) }

// Delete is called by the reflector.
func (a *apiStore) Delete(obj any) error {
	pod, ok := obj.(*v1.Pod)
	if !ok {
		return fmt.Errorf("watch of pods: unexpected %T", obj)
	}
	a.mu.Lock()
	delete(a.pods, pod.UID)
	changed := a.concerned(pod)
	a.mu.Unlock()
	a.tell(changed)
	return nil
}

// Replace is called by the reflector after each list.
func (a *apiStore) Replace(list []any, _ string) error {
	now := map[types.UID]*v1.Pod{}
	var differ []*v1.Pod
	a.mu.Lock()
	for _, obj := range list {
		pod, ok := obj.(*v1.Pod)
		if !ok {
			continue
		}

		if old := a.pods[pod.UID]; old != nil && !newer(pod, old) {
			now[pod.UID] = old
			continue
		}

		now[pod.UID] = strip(pod)
		differ = append(differ, pod)
	}

	for uid, old := range a.pods {
		if now[uid] == nil {
			differ = append(differ, old)
		}
	}

	a.pods = now

	var changed []types.UID
	for _, pod := range differ {
		changed = append(changed, a.concerned(pod)...)
	}

	if a.expected[SourceAPI] {
		delete(a.expected, SourceAPI)
		close(a.synced)

		// the API may not show it
		for uid := range a.static {
			changed = append(changed, uid)
		}
	}

	a.mu.Unlock()
	a.tell(changed)
	return nil
}

// Resync is called by the reflector; levels are compared elsewhere.
func (a *apiStore) Resync() error { return nil }
