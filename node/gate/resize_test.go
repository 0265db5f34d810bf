package gate

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/queue"
)

// resizing is a node of one CPU whose pods change.
type resizing struct {
	*Resizes
	t       *testing.T
	pods    map[types.UID]*v1.Pod
	events  []string
	waits   map[types.UID]string
	trigger []string
}

func newResizing(t *testing.T, ofPods bool) *resizing {
	r := &resizing{t: t, pods: map[types.UID]*v1.Pod{}, waits: map[types.UID]string{}}
	node := admit.Node{
		Object:       &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
		Allocatable:  v1.ResourceList{"cpu": resource.MustParse("1"), "pods": resource.MustParse("10")},
		PodResources: true,
	}

	log := slog.New(slog.DiscardHandler)
	ledger := allocation.New(t.TempDir(), log)
	check := func(pod *v1.Pod, others []*v1.Pod) admit.Verdict { return admit.Check(node, pod, others) }
	r.Resizes = NewResizes(ResizeConfig{
		Gate:        New(check, ledger, func(types.UID) {}),
		Allocations: ledger,
		Pods:        r,
		Queue:       queue.New(),
		Events:      r,
		Meter:       r,
		Able:        allocation.Able{OfPods: ofPods},
		Log:         log,
	})
	return r
}

func (r *resizing) List() (out []*v1.Pod) {
	for _, p := range r.pods {
		out = append(out, p)
	}
	return out
}

func (r *resizing) Settled(string) bool { return true }
func (r *resizing) Pod(pod *v1.Pod, _, _, reason, message string) {
	r.events = append(r.events, string(pod.UID)+" "+reason+" "+message)
}

func (r *resizing) Asked(_, _ *v1.Pod)               {}
func (r *resizing) Infeasible(string)                {}
func (r *resizing) GoesOn(types.UID, bool)           {}
func (r *resizing) Waits(pod *v1.Pod, reason string) { r.waits[pod.UID] = reason }
func (r *resizing) Decided(_ *v1.Pod, _ time.Duration, resolution, trigger string) {
	r.trigger = append(r.trigger, resolution+" "+trigger)
}

// look puts a version of a pod that runs, and returns what it has.
func (r *resizing) look(uid types.UID, generation int64, cpu string) allocation.State {
	p := pod(uid, cpu, time.Hour)
	p.Generation = generation
	p.Spec.Containers[0].Name = "c"
	p.Status.StartTime = &metav1.Time{Time: time.Now()}
	p.Status.ObservedGeneration = generation
	p.Status.Phase = v1.PodRunning
	r.pods[uid] = p
	return r.Look(p)
}

func has(state allocation.State) string {
	return state.Pod.Spec.Containers[0].Resources.Requests.Cpu().String()
}

func TestAResizeIsGivenWhereThereIsRoom(t *testing.T) {
	r := newResizing(t, true)
	r.look("a", 1, "500m")
	state := r.look("a", 2, "800m")
	if has(state) != "800m" || state.Grant == nil || state.Grant.Generation != 2 || state.Pending != nil {
		t.Errorf("%s, %+v", has(state), state)
	}
	if len(r.events) != 1 || !strings.HasPrefix(r.events[0], "a ResizeStarted Pod resize started: {") {
		t.Errorf("%v", r.events)
	}
}

func TestADeferredResizeIsGivenWhenAnotherPodEnds(t *testing.T) {
	r := newResizing(t, true)
	r.look("a", 1, "500m")
	r.look("b", 1, "400m")
	state := r.look("a", 2, "800m")
	const short = "Node didn't have enough resource: cpu, requested: 800, used: 400, capacity: 1000"
	if p := state.Pending; has(state) != "500m" || p == nil || p.Reason != v1.PodReasonDeferred ||
		p.Message != short {
		t.Errorf("%s, %+v", has(state), state.Pending)
	}
	if len(r.events) != 1 || !strings.HasPrefix(r.events[0], "a ResizeDeferred Pod resize OutOfcpu: {") {
		t.Errorf("%v", r.events)
	}
	if r.waits["a"] != v1.PodReasonDeferred {
		t.Errorf("%v", r.waits)
	}

	// Nothing has changed yet.
	r.look("a", 2, "800m")
	if len(r.events) != 1 {
		t.Errorf("told again: %v", r.events)
	}

	ended := *r.pods["b"]
	ended.Status.Phase = v1.PodSucceeded
	r.pods["b"] = &ended
	r.Look(&ended)

	if state := r.look("a", 2, "800m"); has(state) != "800m" || state.Pending != nil {
		t.Errorf("%s, %+v", has(state), state.Pending)
	}
	if len(r.trigger) != 1 || r.trigger[0] != "accepted pod_terminated" || r.waits["a"] != "" {
		t.Errorf("%v, %v", r.trigger, r.waits)
	}
}

func TestADeferredResizeIsDecidedAboutAgainPeriodically(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResizing(t, true)
		r.look("a", 1, "500m")
		r.look("b", 1, "400m")
		r.look("a", 2, "800m")

		// Nobody has said that there is room.
		delete(r.pods, "b")
		time.Sleep(resizeRetry - time.Second)
		if state := r.look("a", 2, "800m"); has(state) != "500m" {
			t.Errorf("before its time: %s", has(state))
		}

		time.Sleep(time.Second)
		if state := r.look("a", 2, "800m"); has(state) != "800m" {
			t.Errorf("when it is due: %s", has(state))
		}
		if len(r.trigger) != 1 || r.trigger[0] != "accepted periodic_retry" {
			t.Errorf("%v", r.trigger)
		}
	})
}

func TestADeferredResizeIsGivenWhenAnotherPodShrinks(t *testing.T) {
	r := newResizing(t, true)
	r.look("a", 1, "500m")
	r.look("b", 1, "400m")
	r.look("a", 2, "800m")

	// It is given at once, and leads to a decision about the other one.
	r.look("b", 2, "100m")
	if state := r.look("a", 2, "800m"); has(state) != "800m" {
		t.Errorf("%s, %+v", has(state), state.Pending)
	}
}

func TestADeferredResizeIsGivenWhenAnotherPodIsGone(t *testing.T) {
	r := newResizing(t, true)
	r.look("a", 1, "500m")
	r.look("b", 1, "400m")
	r.look("a", 2, "800m")

	delete(r.pods, "b")
	r.Forget("b")
	if state := r.look("a", 2, "800m"); has(state) != "800m" {
		t.Errorf("%s, %+v", has(state), state.Pending)
	}
}

func TestARevertedResizeIsNotPendingAnyMore(t *testing.T) {
	r := newResizing(t, true)
	r.look("a", 1, "500m")
	r.look("b", 1, "400m")
	r.look("a", 2, "800m")
	state := r.look("a", 3, "500m")
	if has(state) != "500m" || state.Pending != nil || state.Grant != nil {
		t.Errorf("%s, %+v", has(state), state)
	}
	if len(r.trigger) != 1 || r.trigger[0] != "reverted " {
		t.Errorf("%v", r.trigger)
	}
}

func TestResourcesOfThePodAreInfeasibleWithTheirGateOff(t *testing.T) {
	r := newResizing(t, false)
	r.look("a", 1, "500m")

	asks := *r.pods["a"]
	asks.Generation = 2
	asks.Spec.Resources = &v1.ResourceRequirements{Requests: v1.ResourceList{"cpu": resource.MustParse("1")}}
	r.pods["a"] = &asks
	state := r.Look(&asks)
	if p := state.Pending; p == nil || p.Reason != v1.PodReasonInfeasible || state.Pod.Spec.Resources != nil {
		t.Errorf("%+v", state.Pending)
	}
	if len(r.events) != 1 || !strings.HasPrefix(r.events[0], "a ResizeInfeasible Pod resize Infeasible: {") {
		t.Errorf("%v", r.events)
	}
}

func TestNewPodsAreAdmittedBesideWhatIsGivenNotWhatIsAskedFor(t *testing.T) {
	r := newResizing(t, true)
	r.look("a", 1, "500m")
	r.look("b", 1, "400m")
	r.look("a", 2, "800m")

	fits := pod("new", "100m", 0)
	if verdict := r.cfg.Gate.Ask(fits, r.List()); !verdict.Admitted() {
		t.Errorf("%+v", verdict)
	}
}
