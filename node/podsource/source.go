// Package podsource knows the pods that this node should run: those that the API has bound to it, and static
// ones from manifests in files or on a web server. It keeps the newest version of each pod by UID, so a pod
// that was recreated under its name is another pod, and a late event never replaces what is known to be
// newer.
package podsource

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/queue"
)

// Looks is where pods that have appeared, changed or gone are given to (queue.Queue).
type Looks interface {
	Look(pod types.UID, why queue.Reason)
}

// Source is the set of desired pods. Pods that it returns are shared: they must not be changed. It is safe
// for concurrent use.
type Source struct {
	node     string
	looks    Looks
	log      *slog.Logger
	api      *kube.Watch[v1.Pod] // mirrors included; indexed by UID
	problems problems

	// mu guards the rest.
	mu       sync.Mutex
	static   map[types.UID]*v1.Pod
	expected map[string]bool // sources of static pods that have not said yet which they have
	gone     []types.UID     // see Gone
}

// New returns a source of the pods that are bound to a node. It is empty until Run runs.
func New(pods kube.Objects[v1.Pod], node string, looks Looks, log *slog.Logger) *Source {
	s := &Source{
		node:     node,
		looks:    looks,
		log:      log,
		static:   map[types.UID]*v1.Pod{},
		expected: map[string]bool{},
	}

	s.api = kube.NewWatch(pods, kube.WatchConfig[v1.Pod]{
		Field:   fields.OneTermEqualSelector("spec.nodeName", node).String(),
		Slim:    slim,
		Index:   func(pod *v1.Pod) []string { return []string{string(pod.UID)} },
		Changed: s.changed,
		Listed:  s.listed,
	})

	return s
}

// Run follows the API's pods until ctx ends.
func (s *Source) Run(ctx context.Context) { s.api.Run(ctx) }

// Synced is closed when the API's list is known: before, a pod that is absent may only be unknown.
func (s *Source) Synced() <-chan struct{} { return s.api.Listed() }

// Get returns the newest version of a pod, or nil when the node has no such pod.
func (s *Source) Get(uid types.UID) *v1.Pod {
	s.mu.Lock()
	static := s.static[uid]
	s.mu.Unlock()
	if static != nil {
		return static
	}
	for _, pod := range s.api.By(string(uid)) {
		return pod
	}
	return nil
}

// List returns all pods that run here, the oldest first. Mirrors are not among them.
func (s *Source) List() []*v1.Pod {
	all := slices.DeleteFunc(s.api.All(), Mirror)
	s.mu.Lock()
	all = slices.AppendSeq(all, maps.Values(s.static))
	s.mu.Unlock()

	slices.SortFunc(all, func(a, b *v1.Pod) int {
		return cmp.Or(
			a.CreationTimestamp.Compare(b.CreationTimestamp.Time),
			cmp.Compare(a.UID, b.UID),
		)
	})

	return all
}

// Saw takes the API's answer to a write: it may be newer than the watch. A pod that is not known is not
// added: it has gone.
func (s *Source) Saw(pod *v1.Pod) { s.api.Saw(pod) }

// slim drops what the agent never reads; it is half of a pod's size. A pod of the API is not static, whatever
// its annotations say: anybody may write them, and mirrors have those of their static pods.
func slim(pod *v1.Pod) {
	pod.ManagedFields = nil
	if Static(pod) {
		pod.Annotations[manifest.AnnotationSource] = SourceAPI
	}
}

// changed has the pods looked at that a change of the API's concerns: of a mirror, its static pod, too.
func (s *Source) changed(before, now *v1.Pod) {
	pod := now
	if pod == nil {
		pod = before
	}

	s.looks.Look(pod.UID, queue.PodChanged)
	if !Mirror(pod) {
		return
	}

	var statics []types.UID
	s.mu.Lock()
	for uid, static := range s.static {
		if FullName(static) == FullName(pod) {
			s.static[uid] = s.recall(static)
			statics = append(statics, uid)
		}
	}

	s.mu.Unlock()

	for _, uid := range statics {
		s.looks.Look(uid, queue.PodChanged)
	}
}

// listed has the static pods looked at when the API's list is there: it may not show them.
func (s *Source) listed() {
	s.mu.Lock()
	statics := slices.Collect(maps.Keys(s.static))
	s.mu.Unlock()
	for _, uid := range statics {
		s.looks.Look(uid, queue.PodChanged)
	}
}
