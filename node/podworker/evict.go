package podworker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/queue"
)

// Eviction is why and how a pod ends before its time.
type Eviction struct {
	// Reason and Message are those of the pod's status and of the event, in kubelet's words: "Evicted".
	Reason  string
	Message string

	// Disruption is the message of the condition DisruptionTarget; empty: the pod does not get it.
	Disruption string

	// Annotations are those of the event.
	Annotations map[string]string

	// Grace is how long the containers have at most to end.
	Grace time.Duration
}

// Evict makes a pod end, whose containers are not started again: the API shows it as failed, with the reason.
// The decision is on disk before anything shows, so that it is carried through by whatever agent comes next.
// It reports whether the pod ends because of this call: not if the node does not run the pod, if it has ended
// or must end already for a reason of the agent's own, or if it is critical.
func (w *Worker) Evict(uid types.UID, e Eviction) bool {
	p, pod := w.find(uid), w.deps.Pods.Get(uid)
	if p == nil || pod == nil || plan.Terminal(pod.Status.Phase) || admit.Critical(pod) {
		return false
	}

	decided := w.endings.decide(p, pod, ending{
		Ending: plan.Ending{
			Reason:     e.Reason,
			Message:    e.Message,
			Disruption: e.Disruption,
			Grace:      &e.Grace,
			At:         time.Now(),
		},
		Annotations: e.Annotations,
		Eviction:    true,
	})
	if decided {
		w.deps.Queue.Look(uid, queue.Evicted)
	}

	return decided
}

// Evicting returns the pods that are evicted and not taken down yet, those included that an earlier agent has
// evicted, sorted.
func (w *Worker) Evicting() ([]types.UID, error) {
	// Of pods that were not looked at yet only the record is known.
	recorded, err := w.endings.recorded()
	var out []types.UID
	for _, uid := range recorded {
		if p := w.find(uid); (p == nil || !p.hasRecalled()) && w.endings.evicts(uid) {
			out = append(out, uid)
		}
	}

	for _, uid := range w.endings.evicted() {
		p := w.find(uid)
		if p == nil || p.isDown() {
			w.endings.forget(uid)
			continue
		}

		out = append(out, uid)
	}

	slices.Sort(out)
	return slices.Compact(out), err
}

// ending is a decision of the agent that a pod must end, as its record has it. The pod's teardown removes the
// record with the pod's directory.
type ending struct {
	plan.Ending

	// Annotations are those of the event.
	Annotations map[string]string

	// Eviction tells an eviction from other decisions.
	Eviction bool
}

// endingFile is the name of the record in the pod's directory.
const endingFile = "ending.json"

// endingLimit bounds the size of a record in bytes. Messages grow with the containers of a pod.
const endingLimit = 1 << 20

// endings keeps the decisions of the agent that pods must end, below kubelet's directory of each pod.
type endings struct {
	rootDir string
	events  Events
	log     *slog.Logger

	// mu guards evictions: the pods that are evicted, until they are known to be down.
	mu        sync.Mutex
	evictions map[types.UID]bool
}

// decide makes a pod end for a reason of the agent's own. It reports whether that is the first one.
func (d *endings) decide(p *pod, pod *v1.Pod, e ending) bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	d.takeUp(p, pod)
	if p.plan.Terminated() {
		return false
	}

	// A node that is short of disk space may have no room for the record. Then only the agent's death before
	// the pod has ended would undo the decision.
	if err := d.record(p.uid, e); err != nil {
		d.log.Warn("record that a pod must end", "pod", fullName(pod), "err", err)
	}

	d.terminate(p, pod, e)
	return true
}

// terminate makes the plan end the pod, and sends the event of the decision. The API keeps one for each pod
// and reason.
func (d *endings) terminate(p *pod, pod *v1.Pod, e ending) {
	p.plan.Terminate(e.Ending)
	d.events.PodOnce(pod, v1.EventTypeWarning, e.Reason, e.Message, e.Annotations)
	if !e.Eviction {
		return
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	d.evictions[p.uid] = true
}

// record writes the decision to disk.
func (d *endings) record(uid types.UID, e ending) error {
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}

	path := d.path(uid)
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}

	return durable.WriteFile(path, data, 0o600)
}

// recall takes up what an earlier agent has decided about the pod.
func (d *endings) recall(p *pod, pod *v1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d.takeUp(p, pod)
}

// takeUp is recall. It does so once, and the caller holds the pod's lock. The event of the decision may not
// have been sent before.
func (d *endings) takeUp(p *pod, pod *v1.Pod) {
	if p.recalled {
		return
	}

	p.recalled = true
	e, err := d.read(p.uid)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		d.log.Warn("recall that a pod must end", "pod", fullName(pod), "err", err)
	default:
		d.terminate(p, pod, e)
	}
}

// read reads the record of a pod, which may not exist.
func (d *endings) read(uid types.UID) (e ending, err error) {
	data, err := boundedfile.Read(d.path(uid), endingLimit)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(data, &e); err != nil {
		return e, err
	}
	if e.Reason == "" {
		return e, fmt.Errorf("%s has no reason", endingFile)
	}
	return e, nil
}

// recorded returns the pods that have a record.
func (d *endings) recorded() ([]types.UID, error) {
	pods, err := os.ReadDir(filepath.Join(d.rootDir, "pods"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}

	var out []types.UID
	for _, p := range pods {
		uid := types.UID(p.Name())
		if _, err := os.Lstat(d.path(uid)); err == nil {
			out = append(out, uid)
		}
	}

	return out, err
}

// evicts reports whether the record of a pod is of an eviction.
func (d *endings) evicts(uid types.UID) bool {
	e, err := d.read(uid)
	return err == nil && e.Eviction
}

// evicted returns the pods that this agent has evicted, or has gone on to, and are not forgotten.
func (d *endings) evicted() []types.UID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Keys(d.evictions))
}

// forget forgets a pod that is down.
func (d *endings) forget(uid types.UID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.evictions, uid)
}

func (d *endings) path(uid types.UID) string {
	return filepath.Join(d.rootDir, "pods", string(uid), endingFile)
}
