package objects

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Requested is the size that a claim asks for.
func Requested(c *corev1.PersistentVolumeClaim) resource.Quantity {
	return c.Spec.Resources.Requests[corev1.ResourceStorage]
}

// AsksForMore reports whether a claim asks for a larger volume than it has.
func AsksForMore(c *corev1.PersistentVolumeClaim) bool {
	requested := Requested(c)
	return requested.Cmp(c.Status.Capacity[corev1.ResourceStorage]) > 0
}

// Growth is the step of its growth that a claim's status names; "" if it names none.
func Growth(c *corev1.PersistentVolumeClaim) corev1.ClaimResourceStatus {
	return c.Status.AllocatedResourceStatuses[corev1.ResourceStorage]
}
