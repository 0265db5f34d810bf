package podspec

import v1 "k8s.io/api/core/v1"

// MemoryQoS is how memory is throttled and kept from being reclaimed on cgroup v2 (KEP-2570). The zero value
// does neither.
type MemoryQoS struct {
	// Throttling is kubelet's memoryThrottlingFactor: how much of the way from the request to the limit a
	// container may go before it is slowed down; 0: it never is.
	Throttling float64

	// Tiered is memoryReservationPolicy TieredReservation: what guaranteed pods request is never reclaimed,
	// and what burstable ones request not before everything else.
	Tiered bool

	// Allocatable is the node's allocatable memory in bytes, which stands for the limit of a container that
	// has none.
	Allocatable int64
}

// pageSize is what memory.high is rounded down to, as in kubelet.
const pageSize = 4096

// High returns memory.high of what requests and may use so many bytes, 0 if it has none.
func (q MemoryQoS) High(request, limit int64) int64 {
	if q.Throttling == 0 || limit == 0 || request == limit {
		return 0
	}
	high := int64(float64(request)+float64(limit-request)*q.Throttling) / pageSize * pageSize
	if high <= request {
		return 0
	}
	return high
}

// LimitsMemory reports whether the pod as a whole has a limit of memory.
func LimitsMemory(pod *v1.Pod) bool {
	r := pod.Spec.Resources
	return r != nil && !r.Limits.Memory().IsZero()
}
