package podspec

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Limit returns what a container of the pod may use of a resource: its own limit or, where it has none, that
// of the pod as a whole (KEP-2837); zero if neither is limited.
func Limit(pod *v1.Pod, c *v1.Container, name v1.ResourceName) resource.Quantity {
	own := c.Resources.Limits[name]
	if own.IsZero() && pod.Spec.Resources != nil {
		return pod.Spec.Resources.Limits[name]
	}
	return own
}
