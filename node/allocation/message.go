package allocation

import (
	"encoding/json"

	v1 "k8s.io/api/core/v1"
)

// Event returns the text of an event about a resize, in kubelet's words: what happened, "Pod resize started",
// and the resources in the specification of the pod, with the cause if it is a failure.
func Event(what string, pod *v1.Pod, generation int64, cause string) string {
	summary := struct {
		InitContainers []named `json:"initContainers,omitempty"`
		Containers     []named `json:"containers,omitempty"`
		Generation     int64   `json:"generation"`
		Error          string  `json:"error,omitempty"`
	}{
		InitContainers: namedOf(pod.Spec.InitContainers),
		Containers:     namedOf(pod.Spec.Containers),
		Generation:     generation,
		Error:          cause,
	}

	data, err := json.Marshal(summary)
	if err != nil {
		return what
	}

	return what + ": " + string(data)
}

// named are the resources of a container.
type named struct {
	Name      string                  `json:"name"`
	Resources v1.ResourceRequirements `json:"resources"`
}

func namedOf(containers []v1.Container) []named {
	var out []named
	for i := range containers {
		c := &containers[i]
		out = append(out, named{Name: c.Name, Resources: c.Resources})
	}
	return out
}
