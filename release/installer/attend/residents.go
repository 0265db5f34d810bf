package attend

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// maxResidents bounds those that an order has. Nodes have some hundred pods.
const maxResidents = 1000

// residents are the UIDs of pods that are Ready and are not being deleted.
func residents(pods []*corev1.Pod) (uids []string) {
	for _, pod := range pods {
		if pod.DeletionTimestamp == nil && podReady(pod) && len(uids) < maxResidents {
			uids = append(uids, string(pod.UID))
		}
	}
	return uids
}

// compare finds a resident whose containers are not made again, and one that needs more time, because it is
// not Ready; empty: none. One that has gone or ended is none any more.
func compare(
	residents []string, pods []*corev1.Pod, isCurrent func(containerID string) bool,
) (unmade, unready string) {
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if ended || pod.DeletionTimestamp != nil || !slices.Contains(residents, string(pod.UID)) {
			continue
		}

		for _, c := range pod.Status.ContainerStatuses {
			if unmade == "" && isUnmade(c, isCurrent) {
				unmade = fmt.Sprintf("container %s of pod %s/%s has not been made again%s",
					c.Name, pod.Namespace, pod.Name, reason(c.State.Waiting))
			}
		}
		if unready == "" && !podReady(pod) {
			unready = fmt.Sprintf("pod %s/%s is not Ready", pod.Namespace, pod.Name)
		}
	}
	return unmade, unready
}

// isUnmade reports whether a container is still that of before, or one that the runtime fails to make. What
// it waits for otherwise is the business of its pod: an image that its registry refuses, or a ConfigMap that
// is gone, says nothing of what was exchanged.
func isUnmade(c corev1.ContainerStatus, isCurrent func(containerID string) bool) bool {
	if waiting := c.State.Waiting; waiting != nil {
		return waiting.Reason == "CreateContainerError" || waiting.Reason == "RunContainerError"
	}
	return c.ContainerID != "" && !isCurrent(c.ContainerID)
}

func reason(waiting *corev1.ContainerStateWaiting) string {
	if waiting == nil {
		return ""
	}
	return ": " + waiting.Reason
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
