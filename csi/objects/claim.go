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

// WantedAttributes is the VolumeAttributesClass that a claim asks for; "" if it asks for none.
func WantedAttributes(c *corev1.PersistentVolumeClaim) string {
	if c.Spec.VolumeAttributesClassName == nil {
		return ""
	}
	return *c.Spec.VolumeAttributesClassName
}

// AsksForAttributes reports whether a claim asks for another VolumeAttributesClass than its volume has, or
// its status has something about such a change.
func AsksForAttributes(c *corev1.PersistentVolumeClaim) bool {
	current := ""
	if c.Status.CurrentVolumeAttributesClassName != nil {
		current = *c.Status.CurrentVolumeAttributesClassName
	}
	return c.Status.ModifyVolumeStatus != nil || WantedAttributes(c) != current
}
