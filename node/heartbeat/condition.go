package heartbeat

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/threshold"
)

// finding is one condition as it should be.
type finding struct {
	kind            v1.NodeConditionType
	on              bool
	reason, message string
}

// inspect looks at the machine and the runtime.
func (h *Heart) inspect(ctx context.Context, info runtime.Info, runtimeErr error) []finding {
	now := time.Now()
	return []finding{
		pressure(v1.NodeMemoryPressure, h.held(v1.NodeMemoryPressure, h.memoryLow(), now),
			"KubeletHasInsufficientMemory", "KubeletHasSufficientMemory"),
		pressure(v1.NodeDiskPressure, h.held(v1.NodeDiskPressure, h.diskLow(ctx), now),
			"KubeletHasDiskPressure", "KubeletHasNoDiskPressure"),
		pressure(v1.NodePIDPressure, h.held(v1.NodePIDPressure, h.pidsLow(), now),
			"KubeletHasInsufficientPID", "KubeletHasSufficientPID"),
		ready(info, runtimeErr),
	}
}

// held keeps a pressure for a while after it was last seen, so that a node at the edge does not change with
// each look.
func (h *Heart) held(kind v1.NodeConditionType, low bool, now time.Time) bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	if low {
		h.low[kind] = now
		return true
	}

	last, ever := h.low[kind]
	if !ever || now.Sub(last) >= h.cfg.PressureHold {
		delete(h.low, kind)
		return false
	}

	return true
}

// Pressure are the pressures that the node is under, by name.
func (h *Heart) Pressure() []v1.NodeConditionType {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.low))
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

func (h *Heart) memoryLow() bool {
	total, available, err := Memory()
	return err == nil && h.cfg.Thresholds.Crossed(threshold.Memory, available, total)
}

// diskLow looks at the file systems of pods and of images. They may be one: then the higher threshold counts.
func (h *Heart) diskLow(ctx context.Context) bool {
	if h.fileSystemLow(h.cfg.RootDir, threshold.NodeFS, threshold.NodeFSInodes) {
		return true
	}
	if h.imageDir == "" {
		// asked again at the next look
		h.imageDir, _ = h.runtime.ImageDir(ctx)
	}
	return h.imageDir != "" && h.fileSystemLow(h.imageDir, threshold.ImageFS, threshold.ImageFSInodes)
}

func (h *Heart) fileSystemLow(dir, space, inodes string) bool {
	total, free, count, left, err := disk(dir)
	// btrfs has no count of inodes.
	return err == nil && (h.cfg.Thresholds.Crossed(space, int64(free), int64(total)) ||
		count > 0 && h.cfg.Thresholds.Crossed(inodes, int64(left), int64(count)))
}

func (h *Heart) pidsLow() bool {
	now, limit, err := pids()
	return err == nil && h.cfg.Thresholds.Crossed(threshold.PIDs, limit-now, limit)
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

// apply writes the findings into a status. It reports whether anything but the time changed.
func apply(s *v1.NodeStatus, findings []finding, now time.Time) (changed bool) {
	for _, f := range findings {
		status := v1.ConditionFalse
		if f.on {
			status = v1.ConditionTrue
		}

		want := v1.NodeCondition{
			Type:               f.kind,
			Status:             status,
			Reason:             f.reason,
			Message:            f.message,
			LastHeartbeatTime:  metav1.NewTime(now),
			LastTransitionTime: metav1.NewTime(now),
		}

		have := findCondition(s, f.kind)
		if have == nil {
			s.Conditions = append(s.Conditions, want)
			changed = true
			continue
		}

		if have.Status == want.Status {
			want.LastTransitionTime = have.LastTransitionTime
		}

		changed = changed || have.Status != want.Status || have.Reason != want.Reason ||
			have.Message != want.Message
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
