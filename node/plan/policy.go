package plan

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/dump"
)

// Sidecar reports whether an init container keeps running beside the application (restartPolicy Always).
func Sidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// restartAfter reports whether the policy wants a new instance after this one ended.
func restartAfter(pod *v1.Pod, c *v1.Container, last *Container) bool {
	if last.State == Unknown || last.State == Created {
		return true
	}
	return ShouldRestart(pod, c, last.ExitCode)
}

// ShouldRestart applies the container's restart rules, its own policy, and the pod's, in this order.
func ShouldRestart(pod *v1.Pod, c *v1.Container, exitCode int32) bool {
	if rule := MatchRule(c, exitCode); rule != nil {
		return true
	}

	policy := pod.Spec.RestartPolicy
	if c.RestartPolicy != nil {
		policy = v1.RestartPolicy(*c.RestartPolicy)
	}

	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return exitCode != 0
	}

	return true
}

// MatchRule is the first restart rule of the container that fits the exit code, or nil.
func MatchRule(c *v1.Container, exitCode int32) *v1.ContainerRestartRule {
	for i := range c.RestartPolicyRules {
		r := &c.RestartPolicyRules[i]
		if r.ExitCodes == nil {
			continue
		}
		in := slices.Contains(r.ExitCodes.Values, exitCode)
		if in == (r.ExitCodes.Operator == v1.ContainerRestartRuleOnExitCodesOpIn) {
			return r
		}
	}
	return nil
}

// finished reports whether the pod is done by itself: all application containers ended for good, or an init
// container failed for good.
func (v view) finished(pod *v1.Pod) bool {
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		last := v.latest[c.Name]
		if !Sidecar(c) && last != nil && last.State == Exited && last.ExitCode != 0 &&
			!ShouldRestart(pod, c, last.ExitCode) && !v.begun(pod) {
			return true
		}
	}

	if len(pod.Spec.Containers) == 0 {
		return false
	}

	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		last := v.latest[c.Name]
		switch {
		case last == nil:
			return v.lostSandbox(pod)
		case last.State == Exited && !ShouldRestart(pod, c, last.ExitCode):
		case last.State != Running && v.lostSandbox(pod):
		default:
			return false
		}
	}

	return true
}

func (v view) begun(pod *v1.Pod) bool {
	return slices.ContainsFunc(
		pod.Spec.Containers,
		func(c v1.Container) bool { return v.latest[c.Name] != nil },
	)
}

// lostSandbox: a pod that never restarts does not get a second sandbox once containers ran in the first,
// which may be forgotten.
func (v view) lostSandbox(pod *v1.Pod) bool {
	return pod.Spec.RestartPolicy == v1.RestartPolicyNever && v.ready == nil && len(v.latest) > 0 &&
		!slices.ContainsFunc(
			pod.Spec.Containers,
			func(c v1.Container) bool { return c.RestartPolicy != nil || len(c.RestartPolicyRules) > 0 },
		)
}

// Hash identifies what of a container's spec may change in place, as kubelet computes it: another hash means
// another instance.
func Hash(c *v1.Container) string {
	data, err := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	if err != nil {
		// strings always marshal
		return ""
	}
	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(data))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}
