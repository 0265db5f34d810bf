package podtiming

import (
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Start is what a status that the API shows says about the start of its pod.
type Start struct {
	// Runs means that the phase is Running for the first time; SinceSeen is how long after the agent saw the
	// pod first.
	Runs      bool
	SinceSeen time.Duration

	// Complete means that all containers are shown as started for the first time.
	Complete     bool
	SinceCreated time.Duration

	// SLI is SinceCreated without pulls of images and init containers. It is not meant for stateful pods:
	// those with volumes that are not made of API objects or empty.
	SLI      time.Duration
	Stateful bool

	// Network means that the pod has a network of its own.
	Network bool
}

// Clock measures the start of one pod. The zero value measures nothing until See is called. It is safe for
// concurrent use.
type Clock struct {
	mu   sync.Mutex
	seen time.Time
	runs bool
	done bool

	// pulls are the times in which images were pulled for the pod.
	pulls []interval
}

type interval struct{ from, to time.Time }

// maxPulls bounds what is kept of a pod that cannot start.
const maxPulls = 256

// See begins the measurement of a pod at its first sight. A pod that has begun already, such as one that is
// older than this process, or that had to wait for room in the cluster, is not measured.
func (c *Clock) See(pod *v1.Pod, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.seen.IsZero() || c.done {
		return
	}

	c.done = pod.Status.StartTime != nil || unschedulable(pod)
	c.runs = c.done
	c.seen = now
}

func unschedulable(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c v1.PodCondition) bool {
		return c.Type == v1.PodScheduled && c.Status == v1.ConditionFalse
	})
}

// Pulled says that an image was pulled for the pod.
func (c *Clock) Pulled(from, to time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.done && len(c.pulls) < maxPulls {
		c.pulls = append(c.pulls, interval{from, to})
	}
}

// Shown says that the API shows a status of the pod. It returns what is new in it about the pod's start.
func (c *Clock) Shown(pod *v1.Pod, status *v1.PodStatus, now time.Time) Start {
	c.mu.Lock()
	defer c.mu.Unlock()

	var out Start
	if c.seen.IsZero() || c.done {
		return out
	}

	if status.Phase == v1.PodRunning && !c.runs {
		c.runs = true
		out.Runs = true
		out.SinceSeen = now.Sub(c.seen)
	}

	// A pod that has ended before all of its containers ran at the same time is not measured.
	ended := status.Phase == v1.PodFailed || status.Phase == v1.PodSucceeded
	c.done = ended || started(pod, status)
	if c.done && !ended {
		out.Complete = true
		out.SinceCreated = now.Sub(pod.CreationTimestamp.Time)
		out.SLI = max(out.SinceCreated-union(c.pulls)-initTime(status), 0)
		out.Stateful = stateful(pod)
		out.Network = !pod.Spec.HostNetwork
	}

	if c.done {
		c.pulls = nil
	}
	return out
}

// started reports whether all containers of the pod run.
func started(pod *v1.Pod, status *v1.PodStatus) bool {
	if len(status.ContainerStatuses) < len(pod.Spec.Containers) {
		return false
	}
	return !slices.ContainsFunc(status.ContainerStatuses, func(s v1.ContainerStatus) bool {
		return s.State.Running == nil || s.State.Running.StartedAt.IsZero()
	})
}

// initTime is how long the init containers ran, one after the other.
func initTime(status *v1.PodStatus) time.Duration {
	var sum time.Duration
	for _, s := range status.InitContainerStatuses {
		if t := s.State.Terminated; t != nil && t.FinishedAt.After(t.StartedAt.Time) {
			sum += t.FinishedAt.Sub(t.StartedAt.Time)
		}
	}
	return sum
}

// stateful reports whether a volume of the pod is of another kind than those that the indicator allows.
func stateful(pod *v1.Pod) bool {
	return slices.ContainsFunc(pod.Spec.Volumes, func(v v1.Volume) bool {
		return v.Secret == nil && v.ConfigMap == nil && v.DownwardAPI == nil &&
			v.EmptyDir == nil && v.Projected == nil
	})
}

// union is how much time is in at least one of the intervals.
func union(all []interval) time.Duration {
	slices.SortFunc(all, func(a, b interval) int { return a.from.Compare(b.from) })
	var sum time.Duration
	var end time.Time
	for _, i := range all {
		if i.from.Before(end) {
			i.from = end
		}
		if i.to.After(i.from) {
			sum += i.to.Sub(i.from)
			end = i.to
		}
	}
	return sum
}
