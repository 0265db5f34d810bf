package podworker

import (
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podtiming"
	"github.com/trivet-node/trivet/node/podtrace"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/volume"
)

// pod is what the worker knows of one pod. Looks at it never overlap; steps that end do overlap with looks.
type pod struct {
	uid types.UID

	// mu guards what follows.
	mu   sync.Mutex
	plan *plan.Pod

	// cancels end the steps in flight.
	cancels map[plan.Key]context.CancelFunc

	// recalled means that what an earlier agent has decided about the pod is taken up.
	recalled bool

	// admitted means that the pod was judged and not rejected.
	admitted bool

	// volumes are what the last Prepare has mounted; nil: not set up, or torn down.
	volumes *volume.Volumes

	// images are those for the next start, by the name of the container.
	images map[string]*image

	// failedIn is the newest sandbox in which a first start has failed.
	failedIn string

	// wasHealth is what the API showed of running containers when the agent saw the pod first, by their IDs.
	wasHealth map[string]v1.ContainerStatus

	patch patching

	// trace has a lock of its own.
	trace podtrace.Trace

	// rounds measures the work on the pod.
	rounds podtiming.Rounds

	// start measures its start, and has a lock of its own.
	start podtiming.Clock
}

// image is one that a container may use.
type image struct {
	// name is as the spec calls it.
	name string
	*runtime.Image
}

func newPod(uid types.UID, maxBackoff time.Duration) *pod {
	return &pod{
		uid:     uid,
		plan:    plan.New(uid, maxBackoff),
		cancels: map[plan.Key]context.CancelFunc{},
		images:  map[string]*image{},
	}
}

// beginLook begins a look, for these reasons. It reports whether a patch of the status was on its way then:
// the look may not see the answer.
func (p *pod) beginLook(why queue.Reasons) (sending bool) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.plan.Look()
	if why.Has(queue.ObjectChanged, queue.DriverChanged) {
		p.plan.ObjectChanged()
	}
	return p.patch.sending
}

// spec returns the newest version of the pod that was seen, nil if none was.
func (p *pod) spec() *v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plan.Spec()
}

// terminate makes the pod end for a reason of the agent's own. It reports whether that is the first one.
func (p *pod) terminate(e plan.Ending) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plan.Terminate(e)
}

// hasRecalled reports whether what an earlier agent has decided about the pod is taken up.
func (p *pod) hasRecalled() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.recalled
}

// isDown reports whether the pod is taken down.
func (p *pod) isDown() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.plan.TornDown()
}

// keepImage keeps the image for the next start of a container.
func (p *pod) keepImage(container, name string, have *runtime.Image) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.images[container] = &image{name: name, Image: have}
}

// mounted keeps the volumes that were set up, and when that must be done again; the zero time: never.
func (p *pod) mounted(volumes *volume.Volumes, again time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.volumes = volumes
	if !again.IsZero() {
		p.plan.RenewAt(again)
	}
}

// unmounted says that the volumes are torn down.
func (p *pod) unmounted() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.volumes = nil
}

// healthShown is what the API shows of running containers, by their IDs, when the agent sees the pod first: a
// restarted agent starts from there.
func healthShown(pod *v1.Pod) map[string]v1.ContainerStatus {
	out := map[string]v1.ContainerStatus{}
	for _, s := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		if s.ContainerID != "" && s.State.Running != nil {
			out[s.ContainerID] = s
		}
	}
	return out
}

// failsFirstIn notes that a first start has failed in a sandbox, and reports whether that is news.
func (p *pod) failsFirstIn(sandbox string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	news := p.failedIn != sandbox
	p.failedIn = sandbox
	return news
}
