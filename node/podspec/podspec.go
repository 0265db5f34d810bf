// Package podspec answers questions about a pod's specification that many parts of the agent ask: which
// containers it has, which of them are sidecars, and what its quality of service is. It is pure and decides
// nothing.
package podspec

import (
	"iter"

	v1 "k8s.io/api/core/v1"
)

// All yields the containers of a pod in the order of the API: init containers, application containers,
// ephemeral containers. They are the pod's own, not copies; an ephemeral container is seen as the container
// that it has in common with the others.
func All(pod *v1.Pod) iter.Seq[*v1.Container] {
	return func(yield func(*v1.Container) bool) {
		for c := range Regular(pod) {
			if !yield(c) {
				return
			}
		}

		for i := range pod.Spec.EphemeralContainers {
			e := &pod.Spec.EphemeralContainers[i]
			if !yield((*v1.Container)(&e.EphemeralContainerCommon)) {
				return
			}
		}
	}
}

// Regular yields the containers that the pod was created with: init containers, then application containers.
func Regular(pod *v1.Pod) iter.Seq[*v1.Container] {
	return func(yield func(*v1.Container) bool) {
		for i := range pod.Spec.InitContainers {
			if !yield(&pod.Spec.InitContainers[i]) {
				return
			}
		}

		for i := range pod.Spec.Containers {
			if !yield(&pod.Spec.Containers[i]) {
				return
			}
		}
	}
}

// Running yields the containers that run side by side for most of a pod's life: sidecars, then application
// containers.
func Running(pod *v1.Pod) iter.Seq[*v1.Container] {
	return func(yield func(*v1.Container) bool) {
		for i := range pod.Spec.InitContainers {
			if c := &pod.Spec.InitContainers[i]; Sidecar(c) && !yield(c) {
				return
			}
		}

		for i := range pod.Spec.Containers {
			if !yield(&pod.Spec.Containers[i]) {
				return
			}
		}
	}
}

// Find returns the container of that name, nil if the pod has none.
func Find(pod *v1.Pod, name string) *v1.Container {
	for c := range All(pod) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

// Sidecar reports whether an init container is restartable: it runs beside the application containers.
func Sidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}
