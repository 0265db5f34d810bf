package status

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// amounts is CPU and memory, each empty for none.
func amounts(cpu, memory string) v1.ResourceList {
	out := v1.ResourceList{}
	if cpu != "" {
		out[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		out[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return out
}

// sized is a pod whose container has these resources in its specification.
func sized(requests, limits v1.ResourceList) *v1.Pod {
	p := podOf("Always", nil, []string{"a"})
	p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: requests, Limits: limits}
	return p
}

// of is the status of a pod of a node that shows resources of pods.
func of(p *v1.Pod, o plan.Observed, mod func(*plan.Pod)) v1.PodStatus {
	return Compute(viewOf(p, o, mod), Node{Runtime: "rt", PodResources: true})
}

func TestAContainerShowsWhatTheRuntimeHasInForce(t *testing.T) {
	for name, c := range map[string]struct {
		requests, limits         v1.ResourceList
		force                    *plan.Resources
		wantRequests, wantLimits v1.ResourceList
	}{
		"as given": {
			amounts("100m", "32Mi"), amounts("200m", "64Mi"),
			&plan.Resources{
				CPUShares: 102,
				CPUQuota:  20_000,
				CPUPeriod: 100_000,
				Memory:    64 << 20,
			},
			amounts("100m", "32Mi"), amounts("200m", "64Mi"),
		},
		"not yet": {
			amounts("100m", "32Mi"), amounts("200m", "64Mi"),
			&plan.Resources{
				CPUShares: 51,
				CPUQuota:  10_000,
				CPUPeriod: 100_000,
				Memory:    32 << 20,
			},
			amounts("50m", "32Mi"), amounts("100m", "32Mi"),
		},
		"less than the kernel has": {
			amounts("1m", ""), amounts("5m", ""),
			&plan.Resources{CPUShares: 2, CPUQuota: 1000, CPUPeriod: 100_000},
			amounts("1m", ""), amounts("5m", ""),
		},
		"not known":   {amounts("1", ""), amounts("2", ""), nil, amounts("1", ""), amounts("2", "")},
		"nothing set": {nil, nil, &plan.Resources{CPUShares: 2}, nil, nil},
	} {
		running := instance("a", 0, plan.Running, 0)
		running.Resources = c.force
		got := of(sized(c.requests, c.limits), observed(running), nil).ContainerStatuses[0]
		if !equality.Semantic.DeepEqual(got.AllocatedResources, c.requests) {
			t.Errorf("%s: allocated %v", name, got.AllocatedResources)
		}

		want := &v1.ResourceRequirements{Requests: c.wantRequests, Limits: c.wantLimits}
		if !equality.Semantic.DeepEqual(got.Resources, want) {
			t.Errorf("%s: %s", name, cmp.Diff(want, got.Resources))
		}
	}
}

func TestAPodShowsTheSumOfItsContainersOrItsOwn(t *testing.T) {
	p := sized(amounts("100m", "32Mi"), amounts("200m", "64Mi"))
	got := of(p, observed(instance("a", 0, plan.Running, 0)), nil)
	want := &v1.ResourceRequirements{Requests: amounts("100m", "32Mi"), Limits: amounts("200m", "64Mi")}
	if !equality.Semantic.DeepEqual(got.Resources, want) ||
		!equality.Semantic.DeepEqual(got.AllocatedResources, want.Requests) {
		t.Errorf("%+v, %+v", got.Resources, got.AllocatedResources)
	}

	p.Spec.Resources = &v1.ResourceRequirements{Requests: amounts("1", ""), Limits: amounts("2", "")}
	got = of(p, observed(instance("a", 0, plan.Running, 0)), nil)
	if !got.AllocatedResources.Cpu().Equal(resource.MustParse("1")) ||
		!got.Resources.Limits.Cpu().Equal(resource.MustParse("2")) {
		t.Errorf("%+v, %+v", got.Resources, got.AllocatedResources)
	}

	if off := Compute(viewOf(p, plan.Observed{}, nil), Node{}); off.Resources != nil {
		t.Errorf("with the gate off: %+v", off.Resources)
	}
}

// going is a pod with a running container that does not have what it is given yet.
func going() (*v1.Pod, plan.Observed, *plan.Grant) {
	running := instance("a", 0, plan.Running, 0)
	running.CreatedWith = &podspec.Amounts{CPURequest: 100}
	return sized(amounts("200m", ""), nil), observed(running), &plan.Grant{Generation: 3, At: now}
}

func TestConditionsOfAResizeAreThereWhileItWaitsOrGoesOn(t *testing.T) {
	p, o, grant := going()
	pending := &plan.Pending{Reason: v1.PodReasonDeferred, Message: "no room", Generation: 4}
	s := of(p, o, func(known *plan.Pod) { known.Given(grant, pending) })
	if c := condition(s.Conditions, v1.PodResizePending); c.Status != v1.ConditionTrue ||
		c.Reason != v1.PodReasonDeferred || c.Message != "no room" || c.ObservedGeneration != 4 {
		t.Errorf("pending: %+v", c)
	}
	if c := condition(s.Conditions, v1.PodResizeInProgress); c.Status != v1.ConditionTrue || c.Reason != "" ||
		c.ObservedGeneration != 3 {
		t.Errorf("in progress: %+v", c)
	}

	// It fails.
	s = of(p, o, func(known *plan.Pod) {
		known.Given(grant, nil)
		known.End(plan.Step{Verb: plan.Resize, Grant: grant}, errors.New("the kernel says no"), now)
	})
	if c := condition(s.Conditions, v1.PodResizeInProgress); c.Reason != v1.PodReasonError ||
		c.Message != "the kernel says no" {
		t.Errorf("failed: %+v", c)
	}

	// It is over: the patch takes the conditions out.
	p.Status = s
	done := of(p, o, nil)
	if condition(done.Conditions, v1.PodResizeInProgress).Type != "" {
		t.Errorf("over: %+v", done.Conditions)
	}

	patch, err := Patch(p, &done)
	if err != nil || !strings.Contains(string(patch), `{"$patch":"delete","type":"PodResizeInProgress"}`) {
		t.Errorf("%s, %v", patch, err)
	}
}

func TestTheTimeOfAResizeConditionIsThatOfItsReason(t *testing.T) {
	p, o, grant := going()
	pending := &plan.Pending{Reason: v1.PodReasonDeferred, Message: "no room", Generation: 4}
	p.Status = of(p, o, func(known *plan.Pod) { known.Given(grant, pending) })
	earlier := p.Status.Conditions
	for i := range earlier {
		earlier[i].LastTransitionTime.Time = now.Add(-time.Hour)
	}

	less := &plan.Pending{Reason: v1.PodReasonDeferred, Message: "less room", Generation: 5}
	s := of(p, o, func(known *plan.Pod) { known.Given(grant, less) })
	c := condition(s.Conditions, v1.PodResizePending)
	if !c.LastTransitionTime.Time.Equal(now.Add(-time.Hour)) {
		t.Errorf("another message: %+v", c)
	}
}

func TestWhatIsUrgentOfAResize(t *testing.T) {
	p, o, grant := going()
	given := func(pending *plan.Pending) func(*plan.Pod) {
		return func(known *plan.Pod) { known.Given(grant, pending) }
	}

	before := of(p, o, nil)
	goingOn := of(p, o, given(nil))
	waits := of(p, o, given(&plan.Pending{Reason: v1.PodReasonDeferred}))
	after := *before.DeepCopy()
	after.ContainerStatuses[0].Resources.Requests = amounts("300m", "")

	for name, c := range map[string]struct {
		have, want v1.PodStatus
		urgent     bool
	}{
		"it begins":              {before, goingOn, false},
		"it waits":               {before, waits, true},
		"it is over":             {goingOn, before, true},
		"it has begun and ended": {before, after, true},
		"the first status":       {v1.PodStatus{}, of(p, plan.Observed{}, nil), false},
	} {
		if got := Urgent(&c.have, &c.want); got != c.urgent {
			t.Errorf("%s: %t", name, got)
		}
	}
}
