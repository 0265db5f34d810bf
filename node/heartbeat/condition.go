package heartbeat

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// Thresholds below which the node reports pressure: kubelet's evictionHard defaults.
type Thresholds struct {
	Memory int64   // bytes available
	Disk   float64 // share of the node's file system that is free
	Inodes float64 // share of its inodes that is free
	PIDs   float64 // share of process IDs that is free; kubelet has no default
}

// finding is one condition as it should be.
type finding struct {
	kind            v1.NodeConditionType
	on              bool
	reason, message string
}

// inspect looks at the machine and the runtime.
func (h *Heart) inspect(info runtime.Info, runtimeErr error) []finding {
	return []finding{h.memory(), h.disk(), h.pids(), ready(info, runtimeErr)}
}

func pressure(kind v1.NodeConditionType, on bool, has, hasNot string) finding {
	if on {
		return finding{kind, true, has, "kubelet has " + phrase(kind)}
	}
	return finding{kind, false, hasNot, "kubelet has " + negated(kind)}
}

func phrase(kind v1.NodeConditionType) string {
	switch kind {
	case v1.NodeMemoryPressure:
		return "insufficient memory available"
	case v1.NodeDiskPressure:
		return "disk pressure"
	}
	return "insufficient PID available"
}

func negated(kind v1.NodeConditionType) string {
	switch kind {
	case v1.NodeMemoryPressure:
		return "sufficient memory available"
	case v1.NodeDiskPressure:
		return "no disk pressure"
	}
	return "sufficient PID available"
}

func (h *Heart) memory() finding {
	_, available, err := Memory()
	return pressure(v1.NodeMemoryPressure, err == nil && available < h.cfg.Thresholds.Memory, "KubeletHasInsufficientMemory", "KubeletHasSufficientMemory")
}

func (h *Heart) disk() finding {
	total, free, inodes, inodesFree, err := disk(h.cfg.RootDir)
	low := err == nil && (float64(free) < h.cfg.Thresholds.Disk*float64(total) || float64(inodesFree) < h.cfg.Thresholds.Inodes*float64(inodes))
	return pressure(v1.NodeDiskPressure, low, "KubeletHasDiskPressure", "KubeletHasNoDiskPressure")
}

func (h *Heart) pids() finding {
	now, limit, err := pids()
	return pressure(v1.NodePIDPressure, err == nil && float64(limit-now) < h.cfg.Thresholds.PIDs*float64(limit), "KubeletHasInsufficientPID", "KubeletHasSufficientPID")
}

func ready(info runtime.Info, err error) finding {
	bad := func(format string, args ...any) finding {
		return finding{v1.NodeReady, false, "KubeletNotReady", fmt.Sprintf(format, args...)}
	}
	switch {
	case err != nil:
		return bad("container runtime is down: %v", err)
	case !info.RuntimeReady:
		return bad("container runtime not ready: %s", info.RuntimeWhy)
	case !info.NetworkReady:
		return bad("container runtime network not ready: NetworkReady=false reason:%s", info.NetworkWhy)
	}
	return finding{v1.NodeReady, true, "KubeletReady", "kubelet is posting ready status"}
}

// apply writes the findings into a status. It tells whether anything but the time changed.
func apply(s *v1.NodeStatus, findings []finding, now time.Time) (changed bool) {
	for _, f := range findings {
		status := v1.ConditionFalse
		if f.on {
			status = v1.ConditionTrue
		}
		want := v1.NodeCondition{Type: f.kind, Status: status, Reason: f.reason, Message: f.message,
			LastHeartbeatTime: metav1.NewTime(now), LastTransitionTime: metav1.NewTime(now)}
		have := findCondition(s, f.kind)
		if have == nil {
			s.Conditions = append(s.Conditions, want)
			changed = true
			continue
		}
		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}
		changed = changed || have.Status != want.Status || have.Reason != want.Reason || have.Message != want.Message
		*have = want
	}
	return changed
}

func findCondition(s *v1.NodeStatus, kind v1.NodeConditionType) *v1.NodeCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}
