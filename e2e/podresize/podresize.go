// Package podresize says what the status of a pod shows of a resize in place (KEP 1287, and KEP 5419 for the
// resources of pods).
package podresize

import (
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// ErrRestarted is the error when a container was restarted that should not have been.
var ErrRestarted = errors.New("container was restarted")

// Want is what a pod must show of a resize.
type Want struct {
	// Generation is that of the pod after the resize was asked for.
	Generation int64

	// Restarts is what each of its containers must count.
	Restarts int32
}

// ShownBy reports whether the status of a pod shows that its resources are as the spec says: allocated, in
// force in containers that run, and no condition that says otherwise. A container that was restarted too
// often is an error (ErrRestarted).
func (w Want) ShownBy(pod *corev1.Pod) (bool, error) {
	if pod.Generation < w.Generation || pod.Status.ObservedGeneration < w.Generation {
		return false, nil
	}
	if isResizing(pod) || len(pod.Status.ContainerStatuses) != len(pod.Spec.Containers) {
		return false, nil
	}
	if !shown(pod.Spec.Resources, pod.Status.Resources, pod.Status.AllocatedResources) {
		return false, nil
	}

	for _, c := range pod.Spec.Containers {
		i := slices.IndexFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool {
			return s.Name == c.Name
		})
		if i < 0 {
			return false, nil
		}

		s := pod.Status.ContainerStatuses[i]
		if s.RestartCount > w.Restarts {
			return false, fmt.Errorf("%s of %s: %w: %d, want %d",
				s.Name, pod.Name, ErrRestarted, s.RestartCount, w.Restarts)
		}

		if s.State.Running == nil || s.RestartCount < w.Restarts {
			return false, nil
		}

		has := len(c.Resources.Requests) > 0 || len(c.Resources.Limits) > 0
		if has && !shown(&c.Resources, s.Resources, s.AllocatedResources) {
			return false, nil
		}
	}

	return true, nil
}

// shown reports whether resources that are asked for are in force and allocated. Nothing is asked for by nil.
func shown(asked, inForce *corev1.ResourceRequirements, allocated corev1.ResourceList) bool {
	if asked == nil {
		return true
	}
	return inForce != nil && equality.Semantic.DeepEqual(asked.Requests, inForce.Requests) &&
		equality.Semantic.DeepEqual(asked.Limits, inForce.Limits) &&
		equality.Semantic.DeepEqual(asked.Requests, allocated)
}

func isResizing(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodResizePending || c.Type == corev1.PodResizeInProgress
	})
}

// Failed is why a resize will not be granted; nil as long as it may be.
func Failed(pod *corev1.Pod) error {
	for _, c := range pod.Status.Conditions {
		isInfeasible := c.Type == corev1.PodResizePending && c.Reason == corev1.PodReasonInfeasible
		isError := c.Type == corev1.PodResizeInProgress && c.Reason == corev1.PodReasonError
		if isInfeasible || isError {
			return fmt.Errorf("%s: %s %s: %s", pod.Name, c.Type, c.Reason, c.Message)
		}
	}
	return nil
}
