package localstorage

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helper "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/node/podspec"
)

// Signals of kubelet, by which its metric of evictions tells the limits apart.
const (
	SignalEmptyDir  = "emptydirfs.limit"
	SignalPod       = "ephemeralpodfs.limit"
	SignalContainer = "ephemeralcontainerfs.limit"
)

// Excess is a limit that a pod exceeds.
type Excess struct {
	// Signal is kubelet's name of the kind of limit.
	Signal string

	// Message is kubelet's text of the eviction.
	Message string
}

// Check returns the first limit that a pod exceeds, in kubelet's order: sizes of emptyDir volumes, the limit
// of the whole pod, those of its containers. Writable layers on a file system of their own (dedicated) do not
// count to the limit of a container.
func Check(pod *v1.Pod, use Pod, dedicated bool) (Excess, bool) {
	for i := range pod.Spec.Volumes {
		vol := &pod.Spec.Volumes[i]
		size := sizeLimit(vol)
		if size != nil && exceeds(use.Volumes[vol.Name].Usage, size) {
			message := fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", vol.Name, size)
			return Excess{Signal: SignalEmptyDir, Message: message}, true
		}
	}

	if limit := podLimit(pod); limit != nil && exceeds(use.Total(), limit) {
		message := fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ",
			limit)
		return Excess{Signal: SignalPod, Message: message}, true
	}

	for c := range podspec.Running(pod) {
		limit := containerLimit(c)
		used := use.Containers[c.Name].Logs
		if !dedicated {
			used = used.plus(use.Containers[c.Name].Layer)
		}

		if limit != nil && exceeds(used, limit) {
			message := fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ",
				c.Name, limit)
			return Excess{Signal: SignalContainer, Message: message}, true
		}
	}

	return Excess{}, false
}

// Limited reports whether a pod has a limit that Check looks at.
func Limited(pod *v1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if sizeLimit(&pod.Spec.Volumes[i]) != nil {
			return true
		}
	}
	return podLimit(pod) != nil
}

// exceeds reports whether something takes more than a limit.
func exceeds(used Usage, limit *resource.Quantity) bool {
	return resource.NewQuantity(int64(used.Bytes), resource.BinarySI).Cmp(*limit) > 0
}

// sizeLimit is that of an emptyDir volume, nil if it has none.
func sizeLimit(vol *v1.Volume) *resource.Quantity {
	if vol.EmptyDir == nil || vol.EmptyDir.SizeLimit == nil || vol.EmptyDir.SizeLimit.Sign() <= 0 {
		return nil
	}
	return vol.EmptyDir.SizeLimit
}

// podLimit is what the containers of a pod may take together, nil if none of them has a limit. As with
// kubelet, those that have none add nothing to it.
func podLimit(pod *v1.Pod) *resource.Quantity {
	limit, found := helper.PodLimits(pod, helper.PodResourcesOptions{})[v1.ResourceEphemeralStorage]
	if !found {
		return nil
	}
	return &limit
}

// containerLimit is that of a container, nil if it has none.
func containerLimit(c *v1.Container) *resource.Quantity {
	limit, found := c.Resources.Limits[v1.ResourceEphemeralStorage]
	if !found || limit.Value() == 0 {
		return nil
	}
	return &limit
}
