package nodestatus

import (
	"fmt"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// ownConditions are the agent's; others of the Node have other owners.
var ownConditions = []v1.NodeConditionType{
	v1.NodeReady,
	v1.NodeMemoryPressure,
	v1.NodeDiskPressure,
	v1.NodePIDPressure,
}

// finding is one condition as it should be.
type finding struct {
	kind    v1.NodeConditionType
	on      bool
	reason  string
	message string
}

// pressureWords are kubelet's reasons and messages.
var pressureWords = map[v1.NodeConditionType]struct{ on, off finding }{
	v1.NodeMemoryPressure: {
		on: finding{
			reason:  "KubeletHasInsufficientMemory",
			message: "kubelet has insufficient memory available",
		},
		off: finding{
			reason:  "KubeletHasSufficientMemory",
			message: "kubelet has sufficient memory available",
		},
	},
	v1.NodeDiskPressure: {
		on:  finding{reason: "KubeletHasDiskPressure", message: "kubelet has disk pressure"},
		off: finding{reason: "KubeletHasNoDiskPressure", message: "kubelet has no disk pressure"},
	},
	v1.NodePIDPressure: {
		on:  finding{reason: "KubeletHasInsufficientPID", message: "kubelet has insufficient PID available"},
		off: finding{reason: "KubeletHasSufficientPID", message: "kubelet has sufficient PID available"},
	},
}

// pressure is the condition of a kind of pressure.
func pressure(kind v1.NodeConditionType, on bool) finding {
	out := pressureWords[kind].off
	if on {
		out = pressureWords[kind].on
	}
	out.kind, out.on = kind, on
	return out
}

// readiness is the condition Ready.
func readiness(info runtime.Info, err error) finding {
	switch {
	case err != nil:
		return notReady("container runtime is down: %v", err)
	case !info.RuntimeReady:
		return notReady("container runtime not ready: %s", info.RuntimeWhy)
	case !info.NetworkReady:
		return notReady("container runtime network not ready: NetworkReady=false reason:%s", info.NetworkWhy)
	}

	return finding{
		kind:    v1.NodeReady,
		on:      true,
		reason:  "KubeletReady",
		message: "kubelet is posting ready status",
	}
}

func notReady(format string, args ...any) finding {
	return finding{
		kind:    v1.NodeReady,
		reason:  "KubeletNotReady",
		message: fmt.Sprintf(format, args...),
	}
}

// apply writes the findings into a status. It reports whether anything but the time has changed.
func apply(s *v1.NodeStatus, findings []finding, now time.Time) (changed bool) {
	for _, f := range findings {
		want := v1.NodeCondition{
			Type:               f.kind,
			Status:             v1.ConditionFalse,
			Reason:             f.reason,
			Message:            f.message,
			LastHeartbeatTime:  metav1.NewTime(now),
			LastTransitionTime: metav1.NewTime(now),
		}
		if f.on {
			want.Status = v1.ConditionTrue
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
		if have.Status != want.Status || have.Reason != want.Reason || have.Message != want.Message {
			changed = true
		}

		*have = want
	}

	return changed
}

// findCondition returns the condition of a kind, nil if there is none.
func findCondition(s *v1.NodeStatus, kind v1.NodeConditionType) *v1.NodeCondition {
	for i := range s.Conditions {
		if s.Conditions[i].Type == kind {
			return &s.Conditions[i]
		}
	}
	return nil
}

// isReady reports whether the status says that the node is ready.
func isReady(s *v1.NodeStatus) bool {
	c := findCondition(s, v1.NodeReady)
	return c != nil && c.Status == v1.ConditionTrue
}
