package main

import (
	"encoding/json"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// A pod keeps its quality of service, and no amount is so small that the kernel rounds it: both would be seen
// as a resize that never ends.
func TestCasesAskForWhatTheKernelShowsAgain(t *testing.T) {
	for _, c := range append([]testCase{burst}, cases...) {
		for _, s := range []size{c.small, c.large} {
			r := s.resources()
			if r.Limits.Cpu().MilliValue() < 10 || r.Requests.Cpu().MilliValue() < 2 {
				t.Errorf("%s: %s of a processor is rounded", c.name, s.cpu)
			}

			for name, limit := range r.Limits {
				if request := r.Requests[name]; limit.Cmp(request) <= 0 {
					t.Errorf("%s: limit of %s is not above the request", c.name, name)
				}
			}
		}
	}
}

func TestPatchChangesTheContainerOrThePod(t *testing.T) {
	for _, c := range cases {
		pod := &corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: containerName}}}}
		c.change(pod)
		if hasOwn := pod.Spec.Resources != nil; hasOwn != c.ofPod {
			t.Errorf("%s: the pod has resources of its own: %v", c.name, hasOwn)
		}

		patch, err := json.Marshal(c.patch(true))
		if err != nil {
			t.Fatal(err)
		}

		ofPod := strings.HasPrefix(string(patch), `{"spec":{"resources":`)
		if ofPod != c.ofPod || !strings.Contains(string(patch), c.large.memory) {
			t.Errorf("%s: patch %s", c.name, patch)
		}
	}
}
