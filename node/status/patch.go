package status

import (
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
)

// Patch returns a strategic merge patch for pods/status that is good without reading the object first: it
// names the UID, so that it cannot hit a pod recreated under the same name; conditions merge by type, so that
// those of others survive; addresses are replaced.
func Patch(pod *v1.Pod, want *v1.PodStatus) ([]byte, error) {
	data, err := json.Marshal(want)
	if err != nil {
		return nil, fmt.Errorf("encode status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("encode status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	if s["conditions"], err = conditionsPatch(pod.Status.Conditions, want.Conditions); err != nil {
		return nil, fmt.Errorf("encode conditions of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	for _, name := range []string{"podIPs", "hostIPs"} {
		if ips, ok := s[name].([]any); ok {
			s[name] = append([]any{map[string]string{"$patch": "replace"}}, ips...)
		}
	}

	for _, name := range []string{"reason", "message"} {
		if _, ok := s[name]; !ok {
			s[name] = nil
		}
	}

	// These are written by others.
	for _, name := range []string{
		"resize",
		"nominatedNodeName",
		"resourceClaimStatuses",
		"extendedResourceClaimStatus",
	} {
		delete(s, name)
	}

	return json.Marshal(map[string]any{"metadata": map[string]any{"uid": pod.UID}, "status": s})
}

// conditionsPatch is the agent's part of the conditions. A condition that has no reason or message any more
// says so by null, and one that is there no longer is deleted: a merge keeps what a patch leaves out.
func conditionsPatch(have, want []v1.PodCondition) ([]map[string]any, error) {
	var patches []map[string]any
	for _, x := range have {
		if writes(x) && condition(want, x.Type).Type == "" {
			patches = append(patches, map[string]any{"$patch": "delete", "type": x.Type})
		}
	}

	for _, x := range want {
		if !writes(x) {
			continue
		}

		data, err := json.Marshal(x)
		if err != nil {
			return nil, err
		}

		patch := map[string]any{"reason": nil, "message": nil}
		if err := json.Unmarshal(data, &patch); err != nil {
			return nil, err
		}

		patches = append(patches, patch)
	}

	return patches, nil
}

// writes reports whether the agent writes a condition. That a pod is disrupted is for others to say, too.
func writes(c v1.PodCondition) bool {
	return owned[c.Type] || c.Type == v1.DisruptionTarget && c.Reason == v1.PodReasonTerminationByKubelet
}
