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

// compare finds a resident that does not run with the containers that it should have, and one that does and
// is not Ready; empty: none. One that has gone or ended is none any more.
func compare(
	residents []string, pods []*corev1.Pod, isCurrent func(containerID string) bool,
) (unmade, unready string) {
	for _, pod := range pods {
		ended := pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
		if ended || pod.DeletionTimestamp != nil || !slices.Contains(residents, string(pod.UID)) {
			continue
		}

		for _, c := range pod.Status.ContainerStatuses {
			if unmade == "" && !isCurrent(c.ContainerID) {
				unmade = fmt.Sprintf("container %s of pod %s/%s has not been made again",
					c.Name, pod.Namespace, pod.Name)
			}
		}
		if unready == "" && !podReady(pod) {
			unready = fmt.Sprintf("pod %s/%s is not Ready", pod.Namespace, pod.Name)
		}
	}
	return unmade, unready
}

func podReady(pod *corev1.Pod) bool {
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}
