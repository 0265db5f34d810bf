package main

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// containerName is that of the only container of each pod.
const containerName = "main"

// testCase is a pod that is resized between two sizes.
type testCase struct {
	name string

	// up and down are what the two directions are called in figures; the same for both: one figure.
	up, down string

	small, large size

	// ofPod is whether the resources are those of the pod, whose container has none.
	ofPod bool

	// restarts is whether the container is restarted for it.
	restarts bool
}

// size are requests; limits are twice as much.
type size struct{ cpu, memory string }

var cases = []testCase{
	{
		name:  "cpu",
		up:    "CPU",
		down:  "CPU",
		small: size{cpu: "100m", memory: "64Mi"},
		large: size{cpu: "200m", memory: "64Mi"},
	},
	{
		name:  "memory",
		up:    "memory up",
		down:  "memory down",
		small: size{cpu: "100m", memory: "64Mi"},
		large: size{cpu: "100m", memory: "96Mi"},
	},
	{
		name:  "both",
		up:    "CPU and memory up",
		down:  "CPU and memory down",
		small: size{cpu: "100m", memory: "64Mi"},
		large: size{cpu: "200m", memory: "96Mi"},
	},
	{
		name:  "pod",
		up:    "resources of the pod, up",
		down:  "resources of the pod, down",
		small: size{cpu: "100m", memory: "64Mi"},
		large: size{cpu: "200m", memory: "96Mi"},
		ofPod: true,
	},
	{
		name:     "restart",
		up:       "memory, container restarted",
		down:     "memory, container restarted",
		small:    size{cpu: "100m", memory: "64Mi"},
		large:    size{cpu: "100m", memory: "96Mi"},
		restarts: true,
	},
}

// burst is the case of many pods at once.
var burst = testCase{
	name:  "burst",
	small: size{cpu: "5m", memory: "16Mi"},
	large: size{cpu: "10m", memory: "24Mi"},
}

func (s size) resources() corev1.ResourceRequirements {
	requests := corev1.ResourceList{
		corev1.ResourceCPU:    resource.MustParse(s.cpu),
		corev1.ResourceMemory: resource.MustParse(s.memory),
	}

	limits := corev1.ResourceList{}
	for name, amount := range requests {
		twice := amount.DeepCopy()
		twice.Add(amount)
		limits[name] = twice
	}

	return corev1.ResourceRequirements{Requests: requests, Limits: limits}
}

func (c testCase) size(isUp bool) size {
	if isUp {
		return c.large
	}
	return c.small
}

// change gives a pod with one container the small size.
func (c testCase) change(pod *corev1.Pod) {
	main := &pod.Spec.Containers[0]
	resources := c.small.resources()
	if c.ofPod {
		pod.Spec.Resources = &resources
	} else {
		main.Resources = resources
	}

	if c.restarts {
		main.ResizePolicy = []corev1.ContainerResizePolicy{{
			ResourceName:  corev1.ResourceMemory,
			RestartPolicy: corev1.RestartContainer,
		}}
	}

	pod.Spec.TerminationGracePeriodSeconds = new(int64(1))
	pod.Spec.AutomountServiceAccountToken = new(false)
}

// patch is a strategic merge patch that brings such a pod to one of its sizes.
func (c testCase) patch(isUp bool) map[string]any {
	resources := c.size(isUp).resources()
	if c.ofPod {
		return map[string]any{"spec": map[string]any{"resources": resources}}
	}

	main := map[string]any{"name": containerName, "resources": resources}
	return map[string]any{"spec": map[string]any{"containers": []any{main}}}
}
