package nodestatus

import (
	"slices"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime"
)

// pressures are the conditions that say what the node is short of.
var pressures = []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure}

// findings are the conditions of the node: those that it has now, and what the runtime has said of itself.
func findings(now []v1.NodeConditionType, info runtime.Info, runtimeErr error) []finding {
	var out []finding
	for _, kind := range pressures {
		out = append(out, pressure(kind, slices.Contains(now, kind)))
	}
	return append(out, readiness(info, runtimeErr))
}
