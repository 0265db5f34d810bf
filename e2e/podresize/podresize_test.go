package podresize

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func resources(cpu, memory string) corev1.ResourceRequirements {
	list := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(cpu),
		corev1.ResourceMemory: resource.MustParse(memory),
	}
	return corev1.ResourceRequirements{Requests: list, Limits: list}
}

// resized is a pod that shows its resources, those of its container or its own, as generation 2 and without a
// restart.
func resized(isOfPod bool) *corev1.Pod {
	pod := &corev1.Pod{}
	pod.Generation, pod.Status.ObservedGeneration = 2, 2

	r := resources("200m", "96Mi")
	c := corev1.Container{Name: "main"}
	status := corev1.ContainerStatus{
		Name:  "main",
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}

	if isOfPod {
		pod.Spec.Resources = &r
		pod.Status.Resources, pod.Status.AllocatedResources = &r, r.Requests
	} else {
		c.Resources = r
		status.Resources, status.AllocatedResources = &r, r.Requests
	}

	pod.Spec.Containers = []corev1.Container{c}
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	return pod
}

func TestResizeIsThereWhenAllOfTheStatusShowsIt(t *testing.T) {
	const ofContainer, ofPod = false, true
	smaller := resources("100m", "64Mi")
	condition := func(t corev1.PodConditionType) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{{Type: t, Status: corev1.ConditionTrue}}
		}
	}

	for _, tt := range []struct {
		name   string
		of     bool
		change func(*corev1.Pod)
		want   bool
	}{
		{"container", ofContainer, func(*corev1.Pod) {}, true},
		{"pod", ofPod, func(*corev1.Pod) {}, true},
		{"older spec", ofContainer, func(p *corev1.Pod) { p.Generation = 1 }, false},
		{"older status", ofContainer, func(p *corev1.Pod) { p.Status.ObservedGeneration = 1 }, false},
		{"pending", ofContainer, condition(corev1.PodResizePending), false},
		{"in progress", ofContainer, condition(corev1.PodResizeInProgress), false},
		{"other condition", ofContainer, condition(corev1.PodReady), true},
		{"no container yet", ofContainer, func(p *corev1.Pod) { p.Status.ContainerStatuses = nil }, false},
		{
			"not allocated",
			ofContainer,
			func(p *corev1.Pod) { p.Status.ContainerStatuses[0].AllocatedResources = smaller.Requests },
			false,
		},
		{
			"not in force",
			ofContainer,
			func(p *corev1.Pod) { p.Status.ContainerStatuses[0].Resources = &smaller },
			false,
		},
		{
			"container waits",
			ofContainer,
			func(p *corev1.Pod) { p.Status.ContainerStatuses[0].State = corev1.ContainerState{} },
			false,
		},
		{"pod not in force", ofPod, func(p *corev1.Pod) { p.Status.Resources = &smaller }, false},
		{"pod not allocated", ofPod, func(p *corev1.Pod) { p.Status.AllocatedResources = nil }, false},
	} {
		pod := resized(tt.of)
		tt.change(pod)
		got, err := Want{Generation: 2}.ShownBy(pod)
		if got != tt.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestRestartsAreCounted(t *testing.T) {
	pod := resized(false)
	if got, err := (Want{Generation: 2, Restarts: 1}).ShownBy(pod); got || err != nil {
		t.Errorf("without the restart that belongs to it: %v, %v, want false", got, err)
	}

	pod.Status.ContainerStatuses[0].RestartCount = 1
	if got, err := (Want{Generation: 2, Restarts: 1}).ShownBy(pod); !got || err != nil {
		t.Errorf("with the restart that belongs to it: %v, %v, want true", got, err)
	}
	if _, err := (Want{Generation: 2}).ShownBy(pod); !errors.Is(err, ErrRestarted) {
		t.Errorf("with a restart that does not belong to it: %v, want %v", err, ErrRestarted)
	}
}

func TestResizeThatWillNotComeIsAnError(t *testing.T) {
	for _, tt := range []struct {
		condition corev1.PodConditionType
		reason    string
		want      bool
	}{
		{corev1.PodResizePending, corev1.PodReasonDeferred, false},
		{corev1.PodResizePending, corev1.PodReasonInfeasible, true},
		{corev1.PodResizeInProgress, "", false},
		{corev1.PodResizeInProgress, corev1.PodReasonError, true},
	} {
		pod := &corev1.Pod{}
		pod.Status.Conditions = []corev1.PodCondition{{Type: tt.condition, Reason: tt.reason}}
		if got := Failed(pod); (got != nil) != tt.want {
			t.Errorf("%s %s: %v, want an error: %v", tt.condition, tt.reason, got, tt.want)
		}
	}
}
