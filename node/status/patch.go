package status

import (
	"encoding/json"
	"fmt"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"

	"github.com/trivet-node/trivet/node/plan"
)

// owned are the conditions that the agent writes.
var owned = map[v1.PodConditionType]bool{
	v1.PodReadyToStartContainers: true,
	v1.PodInitialized:            true,
	v1.ContainersReady:           true,
	v1.PodReady:                  true,
	v1.PodScheduled:              true,
	v1.PodResizePending:          true,
	v1.AllContainersRestarting:   true,
}

// mine reports whether the agent writes a condition. That a pod is disrupted is for others to say, too.
func mine(c v1.PodCondition) bool {
	return owned[c.Type] || c.Type == v1.DisruptionTarget && c.Reason == v1.PodReasonTerminationByKubelet
}

// Equal reports whether the API already shows want.
func Equal(have, want *v1.PodStatus) bool { return equality.Semantic.DeepEqual(have, want) }

// SameOfOthers reports whether the conditions that others write, readiness gates above all, are the same in
// both.
func SameOfOthers(a, b *v1.PodStatus) bool {
	for _, pair := range [][2]*v1.PodStatus{{a, b}, {b, a}} {
		for _, x := range pair[0].Conditions {
			if y, _ := condition(pair[1].Conditions, x.Type); !owned[x.Type] && x.Status != y.Status {
				return false
			}
		}
	}
	return true
}

// Urgent reports whether a change should be shown at once. Steps on the way of a pod that is still pending
// can wait for a moment and are often overtaken: in a burst of starts that saves the API server half of the
// writes.
func Urgent(have, want *v1.PodStatus) bool {
	if have.Phase != want.Phase && want.Phase != v1.PodPending {
		return true
	}

	for _, t := range []v1.PodConditionType{v1.PodReady, v1.ContainersReady} {
		a, _ := condition(have.Conditions, t)
		b, _ := condition(want.Conditions, t)
		if (a.Status == v1.ConditionTrue) != (b.Status == v1.ConditionTrue) {
			return true
		}
	}

	for _, pair := range [][2][]v1.ContainerStatus{{
		have.InitContainerStatuses,
		want.InitContainerStatuses,
	}, {have.ContainerStatuses, want.ContainerStatuses},
		{have.EphemeralContainerStatuses, want.EphemeralContainerStatuses}} {
		for i := range pair[1] {
			old := find(pair[0], pair[1][i].Name)
			if s := &pair[1][i]; old == nil && s.State.Waiting == nil ||
				old != nil && (old.State.Terminated == nil) != (s.State.Terminated == nil) {
				return true
			}
		}
	}

	return false
}

// Replacing reports whether a container that runs in a pod that should go on has just ended to run anew as
// its spec says now, with nothing in the way. That takes a moment, and is worth showing only when it takes
// longer: conformance, too, expects a pod whose image was changed to be Ready still when looked at at once.
func Replacing(in plan.Input, d plan.Decision) bool {
	if d.Ending || in.Pod.DeletionTimestamp != nil || in.Memory.Ended != nil {
		return false
	}

	for i := range in.Pod.Spec.Containers {
		spec := &in.Pod.Spec.Containers[i]
		var last *plan.Container
		for j := range in.Observed.Containers {
			o := &in.Observed.Containers[j]
			if o.Name == spec.Name && o.State != plan.Created &&
				(last == nil || o.Created.After(last.Created)) {
				last = o
			}
		}

		if last == nil || last.State != plan.Exited || last.Hash == "" || last.Hash == plan.Hash(spec) {
			continue
		}

		_, unpulled := in.Memory.Failures[plan.Step{Verb: plan.Pull, Name: spec.Name}.Key()]
		_, unstarted := in.Memory.Failures[plan.Step{Verb: plan.Start, Name: spec.Name}.Key()]
		if !unpulled && !unstarted {
			return true
		}
	}

	return false
}

// Patch is a strategic merge patch for pods/status, good without reading the object first: it names the UID,
// so that it cannot hit a pod recreated under the same name; conditions merge by type, so that those of
// others survive; addresses are replaced.
func Patch(pod *v1.Pod, want *v1.PodStatus) ([]byte, error) {
	data, err := json.Marshal(want)
	if err != nil {
		return nil, fmt.Errorf("encode status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}

	var s map[string]any
	if err := json.Unmarshal(data, &s); err != nil {
		return nil, fmt.Errorf("encode status of pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	if s["conditions"], err = conditionsPatch(want.Conditions); err != nil {
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
// says so by null: a merge keeps what a patch leaves out.
func conditionsPatch(all []v1.PodCondition) ([]map[string]any, error) {
	var patches []map[string]any
	for _, x := range all {
		if !mine(x) {
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
