package main

import (
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// resized is a pod that shows the large size of a case, as generation 2 and without a restart.
func resized(c testCase) *corev1.Pod {
	pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: containerName}}}}
	small := c.small
	c.small = c.large
	c.change(pod)
	c.small = small

	resources := c.large.resources()
	status := corev1.ContainerStatus{
		Name:  containerName,
		State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}},
	}
	if c.ofPod {
		pod.Status.Resources, pod.Status.AllocatedResources = &resources, resources.Requests
	} else {
		status.Resources, status.AllocatedResources = &resources, resources.Requests
	}

	pod.Generation, pod.Status.ObservedGeneration = 2, 2
	pod.Status.ContainerStatuses = []corev1.ContainerStatus{status}
	return pod
}

func TestResizeIsThereWhenAllOfTheStatusShowsIt(t *testing.T) {
	ofContainer, ofPod := testCase{}, testCase{ofPod: true}
	for _, c := range []*testCase{&ofContainer, &ofPod} {
		c.small, c.large = size{cpu: "100m", memory: "64Mi"}, size{cpu: "200m", memory: "96Mi"}
	}

	smaller := ofContainer.small.resources()
	condition := func(t corev1.PodConditionType) func(*corev1.Pod) {
		return func(pod *corev1.Pod) {
			pod.Status.Conditions = []corev1.PodCondition{{Type: t, Status: corev1.ConditionTrue}}
		}
	}

	for _, tt := range []struct {
		name   string
		of     testCase
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
		got, err := want{generation: 2}.shows(pod)
		if got != tt.want || err != nil {
			t.Errorf("%s: %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}

func TestRestartsAreCounted(t *testing.T) {
	pod := resized(testCase{small: size{cpu: "1m", memory: "1"}, large: size{cpu: "2m", memory: "2"}})
	if got, err := (want{generation: 2, restarts: 1}).shows(pod); got || err != nil {
		t.Errorf("without the restart that belongs to it: %v, %v, want false", got, err)
	}

	pod.Status.ContainerStatuses[0].RestartCount = 1
	if got, err := (want{generation: 2, restarts: 1}).shows(pod); !got || err != nil {
		t.Errorf("with the restart that belongs to it: %v, %v, want true", got, err)
	}
	if _, err := (want{generation: 2}).shows(pod); !errors.Is(err, errRestarted) {
		t.Errorf("with a restart that does not belong to it: %v, want %v", err, errRestarted)
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
		if got := failed(pod); (got != nil) != tt.want {
			t.Errorf("%s %s: %v, want an error: %v", tt.condition, tt.reason, got, tt.want)
		}
	}
}
