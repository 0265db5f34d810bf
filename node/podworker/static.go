package podworker

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podsource"
)

// mirror looks at a pod that only shows a static one: when that is gone, or somebody deletes the mirror, so
// does it.
func (w *Worker) mirror(ctx context.Context, mirror *v1.Pod) {
	if w.pods.Shows(mirror) {
		return
	}

	w.mu.Lock()
	busy := w.deleting[mirror.UID]
	w.deleting[mirror.UID] = true
	w.mu.Unlock()
	if busy {
		return
	}

	w.steps.Go(func() {
		err := w.api.Delete(ctx, mirror)
		w.mu.Lock()
		delete(w.deleting, mirror.UID)
		w.mu.Unlock()
		if err != nil && ctx.Err() == nil {
			w.log.Warn("delete mirror", "pod", podsource.FullName(mirror), "err", err)
			w.queue.AddAfter(mirror.UID, reportRetry)
		}
	})
}

// shown is what the API shows of a pod, the base of the next patch of its status; of a static pod that is its
// mirror. Until the API's list is there it is not known what a mirror shows, and nothing can be reported.
func (w *Worker) shown(pod *v1.Pod) (base *v1.Pod, known bool) {
	if !podsource.Static(pod) {
		return pod, true
	}

	mirror, known := w.pods.MirrorOf(pod)
	if !known {
		return nil, false
	}

	out := *pod
	out.Status = v1.PodStatus{}
	if mirror != nil && podsource.StaticOf(mirror) == pod.UID && mirror.DeletionTimestamp == nil {
		out.Status = mirror.Status
	}

	return &out, true
}

// anotherTry is how long after a look a static pod that must wait is looked at again, should nobody say that
// its time has come.
const anotherTry = time.Second

// mayBegin reports whether a static pod may run. One whose manifest replaces another's waits until that pod,
// of the same full name, has gone: both would use the same ports and files. The other one may be of an
// earlier life of the agent, so the runtime is asked.
func (w *Worker) mayBegin(ctx context.Context, pod *v1.Pod, observed plan.Observed) (bool, error) {
	if !podsource.Static(pod) {
		return true, nil
	}

	if len(observed.Sandboxes) == 0 {
		others, err := w.runtime.Namesakes(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return false, err
		}

		for uid, annotations := range others {
			if types.UID(uid) != pod.UID && podsource.SourceOf(annotations) != podsource.SourceAPI {
				// perhaps nobody has looked at it yet
				w.Enqueue(types.UID(uid))
				return false, nil
			}
		}
	}

	name := podsource.FullName(pod)
	w.mu.Lock()
	defer w.mu.Unlock()

	if holder, held := w.holders[name]; held && holder != pod.UID {
		return false, nil
	}

	w.holders[name] = pod.UID
	return true, nil
}

// release lets another static pod have the full name of one that has gone.
func (w *Worker) release(uid types.UID) {
	freed := ""
	w.mu.Lock()
	for name, holder := range w.holders {
		if holder == uid {
			delete(w.holders, name)
			freed = name
		}
	}

	w.mu.Unlock()
	if freed == "" {
		return
	}

	for _, pod := range w.pods.List() {
		if podsource.Static(pod) && podsource.FullName(pod) == freed {
			w.Enqueue(pod.UID)
		}
	}
}

// settled reports whether a pod that is not desired has gone, rather than not been read yet. A static pod
// does not come from the API, and need not wait for its list.
func (w *Worker) settled(uid types.UID, observed plan.Observed) bool {
	source := podsource.SourceAPI
	for _, s := range observed.Sandboxes {
		source = podsource.SourceOf(s.Annotations)
	}

	w.mu.Lock()
	p := w.known[uid]
	w.mu.Unlock()
	if p != nil {
		p.mu.Lock()

		// nothing of it may have been made yet
		if p.spec != nil && podsource.Static(p.spec) {
			source = podsource.SourceOf(p.spec.Annotations)
		}

		p.mu.Unlock()
	}

	return w.pods.Settled(source)
}
