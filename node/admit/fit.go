package admit

import (
	"maps"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	helpers "k8s.io/component-helpers/resource"
)

// shortage is a resource of which there is not enough left, in kubelet's units: thousandths of a CPU,
// bytes, pieces.
type shortage struct {
	name                  v1.ResourceName
	requested, used, size int64
}

func (s shortage) refusal() Verdict {
	return reject("OutOf"+string(s.name),
		"Node didn't have enough resource: %s, requested: %d, used: %d, capacity: %d",
		s.name, s.requested, s.used, s.size)
}

// missing is how much must become free.
func (s shortage) missing() int64 { return s.requested - (s.size - s.used) }

// fit adds the requests up.
func fit(node Node, pod *v1.Pod, active []*v1.Pod) []shortage {
	var out []shortage
	if limit, ok := node.Allocatable[v1.ResourcePods]; ok && int64(len(active))+1 > limit.Value() {
		out = append(out, shortage{v1.ResourcePods, 1, int64(len(active)), limit.Value()})
	}

	want := helpers.PodRequests(pod, helpers.PodResourcesOptions{})
	var used v1.ResourceList
	for _, name := range order(want) {
		q := want[name]
		if q.IsZero() {
			continue
		}

		limit, ok := node.Allocatable[name]
		if !ok {
			// A resource of a device plugin.
			limit, ok = node.Object.Status.Allocatable[name]
		}

		if !ok && extended(name) {
			// the cluster's: a scheduler extender has counted it
			continue
		}

		if used == nil {
			used = requests(active)
		}

		s := shortage{name, units(name, q), units(name, used[name]), units(name, limit)}
		if s.missing() > 0 {
			out = append(out, s)
		}
	}

	return out
}

// order is kubelet's: the first that is short is the reason.
func order(list v1.ResourceList) []v1.ResourceName {
	rank := map[v1.ResourceName]int{v1.ResourceCPU: -3, v1.ResourceMemory: -2,
		v1.ResourceEphemeralStorage: -1}
	return slices.SortedFunc(maps.Keys(list), func(a, b v1.ResourceName) int {
		if rank[a] != rank[b] {
			return rank[a] - rank[b]
		}
		return strings.Compare(string(a), string(b))
	})
}

// inForce counts of each pod the larger one of what it has been given, which its specification has, and what
// is in force still, which its status shows.
var inForce = helpers.PodResourcesOptions{
	UseStatusResources: true,
	InPlacePodLevelResourcesVerticalScalingEnabled: true,
}

// requests is what pods have together.
func requests(pods []*v1.Pod) v1.ResourceList {
	out := v1.ResourceList{}
	for _, p := range pods {
		for name, q := range helpers.PodRequests(p, inForce) {
			sum := out[name]
			sum.Add(q)
			out[name] = sum
		}
	}
	return out
}

// extended reports whether a resource is none of Kubernetes' own.
func extended(name v1.ResourceName) bool {
	return strings.Contains(string(name), "/") &&
		!strings.Contains(string(name), v1.ResourceDefaultNamespacePrefix)
}

func units(name v1.ResourceName, q resource.Quantity) int64 {
	if name == v1.ResourceCPU {
		return q.MilliValue()
	}
	return q.Value()
}
