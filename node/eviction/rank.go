package eviction

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"
	"k8s.io/component-helpers/scheduling/corev1"

	"github.com/trivet-node/trivet/node/threshold"
)

// Disk is what something takes of a file system.
type Disk struct {
	Bytes  int64
	Inodes int64
}

func (d Disk) plus(other Disk) Disk { return Disk{d.Bytes + other.Bytes, d.Inodes + other.Inodes} }

// Usage is what a pod uses of the node.
type Usage struct {
	// Memory is the working set in bytes.
	Memory    int64
	Processes int64

	// Containers are those that run, by name.
	Containers map[string]ContainerUsage

	// Volumes is what the volumes take that are the node's own, but for those in memory.
	Volumes Disk
}

// ContainerUsage is what a container uses of the node. What is not known is nil.
type ContainerUsage struct {
	Memory *int64
	Layer  *Disk
	Logs   *Disk
}

// disk adds up the parts of a pod.
func (u Usage) disk(parts []part) Disk {
	var sum Disk
	for _, c := range u.Containers {
		if c.Layer != nil && slices.Contains(parts, layers) {
			sum = sum.plus(*c.Layer)
		}
		if c.Logs != nil && slices.Contains(parts, logs) {
			sum = sum.plus(*c.Logs)
		}
	}

	if slices.Contains(parts, volumes) {
		sum = sum.plus(u.Volumes)
	}

	return sum
}

// candidate is a pod that may have to go, with what decides about its place in the order.
type candidate struct {
	pod      *v1.Pod
	usage    Usage
	measured bool

	// exceeds means that it uses more than it asked for; above is how much more, which may be less than 0.
	exceeds bool
	above   int64
}

// rank returns the pods in the order in which they would be evicted to get back what a signal is about, as
// kubelet orders them: of memory and disk, pods that use more than they asked for come first, then those of
// lower priority, then those that use most above their requests. Processes cannot be asked for: there the
// priority comes first. A pod of which nothing was measured comes first; among equals the youngest does.
func rank(signal string, layout Layout, pods []*v1.Pod, usage usages) []candidate {
	out := make([]candidate, 0, len(pods))
	for _, pod := range pods {
		c := candidate{pod: pod}
		c.usage, c.measured = usage[pod.UID]
		if c.measured {
			c.weigh(signal, layout)
		}

		out = append(out, c)
	}

	slices.SortStableFunc(out, func(a, b candidate) int {
		if resources[signal] == processes {
			return cmp.Or(a.byPriority(b), a.byMeasure(b), a.byUsage(b), a.byAge(b))
		}

		byExcess := compareBool(a.exceeds, b.exceeds)
		return cmp.Or(a.byMeasure(b), byExcess, a.byPriority(b), a.byUsage(b), a.byAge(b))
	})

	return out
}

// weigh compares what a pod uses with what it asked for.
func (c *candidate) weigh(signal string, layout Layout) {
	switch resource := resources[signal]; resource {
	case v1.ResourceMemory:
		c.above = c.usage.Memory - request(c.pod, v1.ResourceMemory)
		c.exceeds = c.above > 0
	case processes:
		c.above = c.usage.Processes
	default:
		used := c.usage.disk(layout.parts(signal))
		amount := used.Bytes
		if resource == inodes {
			amount = used.Inodes
		}

		// Nobody asks for inodes. kubelet compares them with the bytes that were asked for, and so does this.
		c.above = amount - request(c.pod, v1.ResourceEphemeralStorage)
		c.exceeds = amount > request(c.pod, resource)
	}
}

func (c candidate) byMeasure(other candidate) int { return compareBool(!c.measured, !other.measured) }
func (c candidate) byUsage(other candidate) int   { return cmp.Compare(other.above, c.above) }

func (c candidate) byPriority(other candidate) int {
	return cmp.Compare(corev1.PodPriority(c.pod), corev1.PodPriority(other.pod))
}

func (c candidate) byAge(other candidate) int {
	return cmp.Or(
		other.pod.CreationTimestamp.Compare(c.pod.CreationTimestamp.Time),
		cmp.Compare(c.pod.UID, other.pod.UID),
	)
}

// request is how much a pod has asked for, its overhead included.
func request(pod *v1.Pod, name v1.ResourceName) int64 {
	ofPod := helpers.IsPodLevelResourcesSet(pod)
	asked := helpers.PodRequests(pod, helpers.PodResourcesOptions{
		SkipContainerLevelResources: ofPod,
		ExcludeOverhead:             true,
	})[name]

	if overhead, has := pod.Spec.Overhead[name]; has && !asked.IsZero() {
		asked.Add(overhead)
	}

	return asked.Value()
}

// graceOf is how long a pod has to end, as kubelet has it: a second where a threshold must not be crossed at
// all, else as long as it wants, up to the limit.
func graceOf(pod *v1.Pod, t threshold.Threshold, limit int64) int64 {
	if t.Hard() {
		return 1
	}
	if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
		limit = min(limit, *own)
	}
	return max(limit, 1)
}
