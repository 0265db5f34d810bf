package allocation

import (
	"cmp"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/swap"
)

// Request is a resize that a pod asks for.
type Request struct {
	// Pod asks for it, and Given has in its specification what the pod has been given.
	Pod   *v1.Pod
	Given *v1.Pod

	// Pending is the decision before; nil: there was none.
	Pending *plan.Pending

	// Since is when the pod began to ask.
	Since time.Time
}

func (e *entry) request() *Request {
	return &Request{
		Pod:     e.asked,
		Given:   e.given.in(e.asked),
		Pending: e.pending,
		Since:   e.since,
	}
}

// Waiting reports whether some pod asks for what it has not been given.
func (l *Ledger) Waiting() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting()
}

func (l *Ledger) waiting() bool {
	for _, e := range l.pods {
		if e.asked != nil {
			return true
		}
	}
	return false
}

// Able is what a node can resize.
type Able struct {
	// OfPods means that resources of pods as a whole can be changed.
	OfPods bool

	// Swap is who may swap: the limit of that follows from what is requested at the start.
	Swap swap.Policy
}

// Infeasible returns why a request can never be given on this node, empty if it can, with kubelet's label for
// it.
func Infeasible(r *Request, able Able) (label, message string) {
	switch {
	case swaps(r, able.Swap):
		return "swap_limitation", "In-place resize of containers with swap is not supported."
	case !able.OfPods && !equality.Semantic.DeepEqual(r.Pod.Spec.Resources, r.Given.Spec.Resources):
		return "plr_feature_gate_off", "InPlacePodLevelResourcesVerticalScaling is disabled"
	}
	return "", ""
}

// swaps reports whether another amount of memory is requested for a container that may swap, before or after,
// and is not restarted for it.
func swaps(r *Request, policy swap.Policy) bool {
	for c := range podspec.Regular(r.Pod) {
		given := podspec.Find(r.Given, c.Name)
		if given == nil || restarted(given, v1.ResourceMemory) {
			continue
		}

		same := c.Resources.Requests.Memory().Cmp(*given.Resources.Requests.Memory()) == 0
		if !same && (policy.Allows(r.Pod, c) || policy.Allows(r.Given, given)) {
			return true
		}
	}

	return false
}

// restarted reports whether a container is restarted when an amount of its resources changes.
func restarted(c *v1.Container, name v1.ResourceName) bool {
	i := slices.IndexFunc(c.ResizePolicy, func(p v1.ContainerResizePolicy) bool {
		return p.ResourceName == name
	})
	return i >= 0 && c.ResizePolicy[i].RestartPolicy == v1.RestartContainer
}

// Requests returns the resizes to decide about, in kubelet's order: first those that take nothing from the
// node, then by priority, quality of service and the time since when they are asked for. One that is
// infeasible is not asked for again.
func (l *Ledger) Requests() []*Request {
	l.mu.Lock()
	defer l.mu.Unlock()

	var out []*Request
	for _, e := range l.pods {
		settled := e.pending != nil && e.pending.Reason == v1.PodReasonInfeasible &&
			e.pending.Generation == e.asked.Generation
		if e.asked != nil && !settled {
			out = append(out, e.request())
		}
	}

	slices.SortFunc(out, before)
	return out
}

// before compares two requests by their order.
func before(a, b *Request) int {
	rank := func(r *Request) int {
		if increases(r.Pod, r.Given) {
			return 1
		}
		return 0
	}

	class := func(r *Request) int {
		if podspec.QOS(r.Pod) == v1.PodQOSGuaranteed {
			return 0
		}
		return 1
	}

	return cmp.Or(
		cmp.Compare(rank(a), rank(b)),
		cmp.Compare(priority(b.Pod), priority(a.Pod)),
		cmp.Compare(class(a), class(b)),
		a.Since.Compare(b.Since),
		cmp.Compare(a.Pod.UID, b.Pod.UID),
	)
}

func priority(pod *v1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

// Grant gives a pod what this version of it asks for. From here on it counts so for others, but it does not
// act before Keep has written it.
func (l *Ledger) Grant(pod *v1.Pod, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()

	e := l.pods[pod.UID]
	if e == nil {
		return
	}

	e.asked, e.pending = nil, nil
	e.given = holding{pod: pod, grant: &plan.Grant{
		Generation: pod.Generation,
		At:         now,
		Announced:  true,
	}}
}

// Refuse keeps why a pod is not given what this version of it asks for. It reports whether that is news: a
// message alone is none.
func (l *Ledger) Refuse(pod *v1.Pod, p plan.Pending, now time.Time) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()

	e := l.pods[pod.UID]
	if e == nil || e.asked == nil {
		return false
	}

	old := e.pending
	e.pending = &p
	e.decided = now
	if shown := find(e.asked, v1.PodResizePending); old == nil && shown != nil {
		// An earlier agent has said so.
		return shown.Reason != p.Reason || shown.ObservedGeneration != p.Generation
	}

	return old == nil || old.Reason != p.Reason || old.Generation != p.Generation
}
