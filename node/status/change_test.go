package status

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/reason"
)

func TestAReplacedContainerIsOnItsWayUntilSomethingStandsInIt(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	hash := plan.Hash(&p.Spec.Containers[0])
	old := instance("a", 0, plan.Exited, 0)
	old.Hash = "of an older image"
	created := instance("a", 1, plan.Created, 0)
	created.Hash = hash
	crashed, running := old, created
	crashed.Hash, running.State = hash, plan.Running
	deleted := p.DeepCopy()
	deleted.DeletionTimestamp = &metav1.Time{Time: now}

	for _, c := range []struct {
		name string
		pod  *v1.Pod
		all  []plan.Container
		fail bool
		want bool
	}{
		{"ended", p, []plan.Container{old}, false, true},
		{"the next one is made", p, []plan.Container{old, created}, false, true},
		{"the next one runs", p, []plan.Container{old, running}, false, false},
		{"crashed", p, []plan.Container{crashed}, false, false},
		{"its image cannot be pulled", p, []plan.Container{old}, true, false},
		{"the pod is deleted", deleted, []plan.Container{old}, false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			view := viewOf(c.pod, plan.Observed{Sandboxes: up(), Containers: c.all}, func(known *plan.Pod) {
				if c.fail {
					pull := plan.Step{Verb: plan.Pull, Name: "a", Image: "a"}
					known.End(pull, reason.New(reasonPullError, errors.New("not found")), now)
				}
			})
			if got := Replacing(view); got != c.want {
				t.Errorf("%v, want %v", got, c.want)
			}
		})
	}
}

// shows is a status of a phase with one container in a state, and perhaps Ready.
func shows(phase v1.PodPhase, state v1.ContainerState, ready bool) *v1.PodStatus {
	s := &v1.PodStatus{Phase: phase, ContainerStatuses: []v1.ContainerStatus{{Name: "a", State: state}}}
	if ready {
		s.Conditions = []v1.PodCondition{{Type: v1.PodReady, Status: v1.ConditionTrue}}
	}
	return s
}

func TestWhatUsersWaitForIsUrgent(t *testing.T) {
	waiting := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	ended := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{}}

	for _, c := range []struct {
		name string
		have *v1.PodStatus
		want *v1.PodStatus
	}{
		{"the phase", shows("Pending", waiting, false), shows("Running", running, false)},
		{"ready", shows("Running", running, false), shows("Running", running, true)},
		{"not ready any more", shows("Running", running, true), shows("Running", running, false)},
		{"a container ended", shows("Running", running, false), shows("Running", ended, false)},
		{"a container goes on", shows("Running", ended, false), shows("Running", running, false)},
		{
			"a container that the API does not show",
			&v1.PodStatus{Phase: "Running"},
			shows("Running", running, false),
		},
	} {
		if !Urgent(c.have, c.want) {
			t.Errorf("%s: it can wait", c.name)
		}
	}
}

func TestWhatAPodThatStartsDoesCanWait(t *testing.T) {
	waiting := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}

	for _, c := range []struct {
		name string
		have *v1.PodStatus
		want *v1.PodStatus
	}{
		{"nothing new", shows("Running", running, true), shows("Running", running, true)},
		{"a pod that is pending", &v1.PodStatus{}, shows("Pending", waiting, false)},
		{
			"a first container runs, others do not",
			shows("Pending", waiting, false),
			shows("Pending", running, false),
		},
	} {
		if Urgent(c.have, c.want) {
			t.Errorf("%s: it is urgent", c.name)
		}
	}
}

func TestOnlyBackOffsThatBeginAreAnnounced(t *testing.T) {
	of := func(name, reason string) v1.ContainerStatus {
		state := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}
		return v1.ContainerStatus{Name: name, State: state}
	}

	have := &v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{
		of("stays", ReasonCrashLoop),
		of("pulls", reasonPullError),
	}}

	want := &v1.PodStatus{
		InitContainerStatuses: []v1.ContainerStatus{of("new", ReasonCrashLoop)},
		ContainerStatuses: []v1.ContainerStatus{
			of("stays", ReasonCrashLoop),
			of("pulls", ReasonPullBackOff),
			of("waits", reasonCreating),
		},
	}

	var got []string
	for _, s := range BackingOff(have, want) {
		got = append(got, fmt.Sprint(s.Name, " ", s.State.Waiting.Reason))
	}

	if expect := []string{"new CrashLoopBackOff", "pulls ImagePullBackOff"}; !slices.Equal(got, expect) {
		t.Errorf("%q, want %q", got, expect)
	}
}

func TestAddressesAreThoseOfTheNewestSandbox(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	two := []plan.Sandbox{
		{ID: "old", Ready: true, IPs: []string{"10.0.0.1"}},
		{ID: "new", Attempt: 1, Ready: true, IPs: []string{"10.0.0.2"}},
	}
	if got := compute(p, plan.Observed{Sandboxes: two}, nil).PodIP; got != "10.0.0.2" {
		t.Errorf("address %s, want that of the newest sandbox", got)
	}

	two[1].Ready = false
	p.Status.PodIP = "10.0.0.9"
	if got := compute(p, plan.Observed{Sandboxes: two}, nil).PodIP; got != "10.0.0.9" {
		t.Errorf("address %s, want what was shown while the newest sandbox is not ready", got)
	}

	p.Spec.HostNetwork = true
	two[1].Ready = true
	if got := compute(p, plan.Observed{Sandboxes: two}, nil).PodIP; got != "192.0.2.1" {
		t.Errorf("address %s, want the node's for a pod on its network", got)
	}
}

func TestAPullErrorBecomesABackOffAfterAMoment(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	for after, want := range map[string]string{"0s": reasonPullError, "2s": ReasonPullBackOff} {
		view := viewOf(p, plan.Observed{Sandboxes: up()}, func(known *plan.Pod) {
			failed := now
			if after == "2s" {
				failed = now.Add(-plan.PullErrorShown)
			}

			pull := plan.Step{Verb: plan.Pull, Name: "a", Image: "a"}
			known.End(pull, reason.New(reasonPullError, errors.New("not found")), failed)
		})

		s := Compute(view, Node{}).ContainerStatuses[0]
		if s.State.Waiting == nil || s.State.Waiting.Reason != want {
			t.Errorf("after %s: %+v, want %s", after, s.State, want)
		}
	}
}
