package podworker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/queue"
)

// mirrors deletes pods of the API that only show static ones, when they have nothing to show any more or
// somebody deletes them.
type mirrors struct {
	pods  Pods
	api   API
	queue *queue.Queue
	log   *slog.Logger
	steps *sync.WaitGroup

	// mu guards deleting: the mirrors that are being deleted, by UID.
	mu       sync.Mutex
	deleting map[types.UID]bool
}

// look deletes a mirror unless it shows something.
func (m *mirrors) look(ctx context.Context, mirror *v1.Pod) {
	if m.pods.Shows(mirror) {
		return
	}

	m.mu.Lock()
	busy := m.deleting[mirror.UID]
	m.deleting[mirror.UID] = true
	m.mu.Unlock()
	if busy {
		return
	}

	m.steps.Go(func() {
		err := m.api.Delete(ctx, mirror)

		m.mu.Lock()
		delete(m.deleting, mirror.UID)
		m.mu.Unlock()

		if err != nil && ctx.Err() == nil {
			m.log.Warn("delete mirror", "pod", podsource.FullName(mirror), "err", err)
			m.queue.LookAfter(mirror.UID, reportRetry, queue.Retry)
		}
	})
}

// names holds the full names of static pods. No two pods hold the same name.
type names struct {
	// mu guards holders: who holds a name.
	mu      sync.Mutex
	holders map[string]types.UID
}

// take gives a name to a pod and reports whether it has it now.
func (n *names) take(name string, uid types.UID) bool {
	n.mu.Lock()
	defer n.mu.Unlock()

	if holder, held := n.holders[name]; held {
		return holder == uid
	}
	if n.holders == nil {
		n.holders = map[string]types.UID{}
	}

	n.holders[name] = uid
	return true
}

// free frees the name that a pod holds and returns it, empty if it holds none.
func (n *names) free(uid types.UID) string {
	n.mu.Lock()
	defer n.mu.Unlock()

	for name, holder := range n.holders {
		if holder == uid {
			delete(n.holders, name)
			return name
		}
	}
	return ""
}

// nameRetry is how long after a look a static pod that waits for its name is looked at again, if the name is
// not freed before.
const nameRetry = time.Second

// nameIsFree reports whether a pod may run under its name. A static pod whose manifest replaces another's
// waits until that pod, of the same full name, is taken down: both would use the same ports and files. That
// pod may be of an earlier life of the agent and known to the runtime only.
func (w *Worker) nameIsFree(ctx context.Context, pod *v1.Pod, observed plan.Observed) (bool, error) {
	if !podsource.Static(pod) {
		return true, nil
	}

	if len(observed.Sandboxes) == 0 {
		namesakes, err := w.deps.Runtime.Namesakes(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return false, err
		}

		for uid, annotations := range namesakes {
			uid := types.UID(uid)
			if uid == pod.UID || podsource.SourceOf(annotations) == podsource.SourceAPI {
				continue
			}
			if p := w.find(uid); p == nil || !p.isDown() {
				// It may be one that was not looked at in this life of the agent.
				w.deps.Queue.Look(uid, queue.OnlyInRuntime)
				return false, nil
			}
		}
	}

	return w.names.take(podsource.FullName(pod), pod.UID), nil
}

// freeName lets another static pod have the full name of one that has gone and is taken down.
func (w *Worker) freeName(uid types.UID) {
	freed := w.names.free(uid)
	if freed == "" {
		return
	}

	for _, pod := range w.deps.Pods.List() {
		if podsource.Static(pod) && podsource.FullName(pod) == freed {
			w.deps.Queue.Look(pod.UID, queue.NameFreed)
		}
	}
}

// hasGone reports whether a pod that is not desired has gone, rather than not been read yet. A static pod
// does not come from the API, and need not wait for its list. known may be nil.
func (w *Worker) hasGone(known *pod, observed plan.Observed) bool {
	source := podsource.SourceAPI
	for _, s := range observed.Sandboxes {
		source = podsource.SourceOf(s.Annotations)
	}

	// It may have no sandbox yet.
	if known != nil {
		if spec := known.spec(); spec != nil && podsource.Static(spec) {
			source = podsource.SourceOf(spec.Annotations)
		}
	}

	return w.deps.Pods.Settled(source)
}
