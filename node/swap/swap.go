// Package swap decides how much of the machine's swap a container may use (KEP-2400). It is pure; that a
// container keeps to it is the runtime's and the kernel's.
package swap

import (
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/podspec"
)

// Policy is who may swap on a node. The zero value leaves that to the kernel, which knows no bound.
type Policy struct {
	// Bounded means that the kernel can bound what containers swap out: each of them gets a limit.
	Bounded bool

	// Limited is memorySwap.swapBehavior LimitedSwap, which cgroup v2 alone can do; without it nobody swaps.
	Limited bool

	// Memory and Capacity are the memory and the swap of the machine, in bytes.
	Memory   int64
	Capacity int64
}

// Allows reports whether a container may swap, by kubelet's rules: only those of burstable pods that the node
// can do without, and only if they request less memory than they may use.
func (p Policy) Allows(pod *v1.Pod, c *v1.Container) bool {
	if !p.Bounded || !p.Limited || admit.Critical(pod) || podspec.QOS(pod) != v1.PodQOSBurstable {
		return false
	}
	request, limit := c.Resources.Requests.Memory(), c.Resources.Limits.Memory()
	return request.Cmp(*limit) != 0
}

// Limit returns how many bytes a container may swap out: the share of the machine's swap that its request is
// of the machine's memory.
func (p Policy) Limit(pod *v1.Pod, c *v1.Container) int64 {
	request := c.Resources.Requests.Memory().Value()
	if !p.Allows(pod, c) || p.Memory <= 0 || request > p.Memory {
		return 0
	}
	return int64(float64(request) / float64(p.Memory) * float64(p.Capacity))
}
