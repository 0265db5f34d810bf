package admit

import (
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	helpers "k8s.io/component-helpers/resource"

	"github.com/trivet-node/trivet/node/podspec"
)

// preempt chooses pods that end in favour of a critical one, as kubelet does: as few as possible, and of
// the lowest quality of service.
func preempt(pod *v1.Pod, active []*v1.Pod, short []shortage) Verdict {
	byClass := map[v1.PodQOSClass][]*v1.Pod{}
	var all []*v1.Pod
	for _, o := range active {
		if mayPreempt(pod, o) {
			byClass[podspec.QOS(o)] = append(byClass[podspec.QOS(o)], o)
			all = append(all, o)
		}
	}

	needs := needed(short)
	if left := needs.without(all); len(left) > 0 {
		return reject("UnexpectedAdmissionError",
			"Unexpected error while attempting to recover from admission failure: "+
				"preemption: error finding a set of pods to preempt: "+
				"no set of running pods found to reclaim resources: %v", left)
	}

	// Of each class only what the lower ones, all of them, do not free.
	low, middle, high := byClass[v1.PodQOSBestEffort], byClass[v1.PodQOSBurstable],
		byClass[v1.PodQOSGuaranteed]
	highest := nearest(high, needs.without(slices.Concat(low, middle)))
	middling := nearest(middle, needs.without(slices.Concat(low, highest)))
	lowest := nearest(low, needs.without(slices.Concat(middling, highest)))
	return Verdict{Preempt: slices.Concat(lowest, middling, highest)}
}

// need is an amount of a resource that must become free.
type need struct {
	name   v1.ResourceName
	amount int64
}

type needs []need

func needed(short []shortage) needs {
	var out needs
	for _, s := range short {
		out = append(out, need{s.name, s.missing()})
	}
	return out
}

// String is as kubelet writes it.
func (n needs) String() string {
	var b strings.Builder
	for _, one := range n {
		fmt.Fprintf(&b, "(res: %v, q: %d), ", one.name, one.amount)
	}
	return "[" + b.String() + "]"
}

// without is what is still needed when pods are gone.
func (n needs) without(pods []*v1.Pod) needs {
	var out needs
	for _, one := range n {
		left := one.amount
		for _, p := range pods {
			left -= frees(p, one.name)
		}
		if left > 0 {
			out = append(out, need{one.name, left})
		}
	}
	return out
}

// distance is how far from enough a pod is: the sum of squares of the shares that it does not free.
func (n needs) distance(pod *v1.Pod) float64 {
	sum := 0.0
	for _, one := range n {
		if left := float64(one.amount - frees(pod, one.name)); left > 0 {
			share := left / float64(one.amount)
			sum += share * share
		}
	}
	return sum
}

// nearest takes the pods that are nearest to what is needed, the smaller of two that are equally near,
// until nothing is.
func nearest(pods []*v1.Pod, left needs) []*v1.Pod {
	pods = slices.Clone(pods)
	var out []*v1.Pod
	for len(left) > 0 && len(pods) > 0 {
		best := 0
		for i, p := range pods {
			here, there := left.distance(p), left.distance(pods[best])
			if here < there || here == there && smaller(p, pods[best]) {
				best = i
			}
		}

		out = append(out, pods[best])
		left = left.without(pods[best : best+1])
		pods = slices.Delete(pods, best, best+1)
	}

	return out
}

// smaller reports whether a asks for less than b: of memory, then of CPU.
func smaller(a, b *v1.Pod) bool {
	for _, name := range []v1.ResourceName{v1.ResourceMemory, v1.ResourceCPU} {
		if x, y := frees(a, name), frees(b, name); x != y {
			return x < y
		}
	}
	return true
}

// frees is what becomes free of a resource when a pod ends.
func frees(pod *v1.Pod, name v1.ResourceName) int64 {
	if name == v1.ResourcePods {
		return 1
	}
	return units(name, helpers.PodRequests(pod, inForce)[name])
}
