package plan

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"

	v1 "k8s.io/api/core/v1"
	"k8s.io/utils/dump"

	"github.com/trivet-node/trivet/node/podspec"
)

// restartAfter reports whether the policy wants a new instance after this one ended.
func restartAfter(pod *v1.Pod, c *v1.Container, last *Container) bool {
	if last.State == Unknown || last.State == Created {
		return true
	}
	return ShouldRestart(pod, c, last.ExitCode)
}

// mayRestart reports whether the instance of a container that ended is to be replaced: an init container only
// if it failed.
func mayRestart(pod *v1.Pod, c *v1.Container, last *Container) bool {
	if isApplication(pod, c) || podspec.Sidecar(c) {
		return restartAfter(pod, c, last)
	}
	return last.State == Unknown || last.ExitCode != 0 && restartAfter(pod, c, last)
}

// isApplication reports whether a container is among the spec's containers, not an init or ephemeral one.
func isApplication(pod *v1.Pod, c *v1.Container) bool {
	return slices.ContainsFunc(pod.Spec.Containers, func(x v1.Container) bool { return x.Name == c.Name })
}

// ShouldRestart reports whether a container that ended with the exit code is restarted. Its restart rules
// come first, then its own policy, then the pod's.
func ShouldRestart(pod *v1.Pod, c *v1.Container, exitCode int32) bool {
	if rule := matchRule(c, exitCode); rule != nil {
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

// matchRule returns the first restart rule of the container that fits the exit code, or nil.
func matchRule(c *v1.Container, exitCode int32) *v1.ContainerRestartRule {
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
// container failed for good. While all containers are restarted, none has.
func (v *View) finished() bool {
	if len(v.triggers()) > 0 {
		return false
	}
	if v.initFailed() {
		return true
	}
	if len(v.Pod.Spec.Containers) == 0 {
		return false
	}

	for i := range v.Pod.Spec.Containers {
		c := &v.Pod.Spec.Containers[i]
		last := v.latest(c.Name)
		if last == nil {
			return v.lostSandbox()
		}

		over := last.State == Exited && !ShouldRestart(v.Pod, c, last.ExitCode) && !v.StoppedToResize(c, last)
		if !over && (last.State == Running || !v.lostSandbox()) {
			return false
		}
	}

	return true
}

// initFailed reports whether an init container failed for good before any application container began.
func (v *View) initFailed() bool {
	begun := func(c v1.Container) bool { return v.latest(c.Name) != nil }
	if slices.ContainsFunc(v.Pod.Spec.Containers, begun) {
		return false
	}

	for i := range v.Pod.Spec.InitContainers {
		c := &v.Pod.Spec.InitContainers[i]
		last := v.latest(c.Name)
		if podspec.Sidecar(c) || last == nil || last.State != Exited {
			continue
		}
		if last.ExitCode != 0 && !ShouldRestart(v.Pod, c, last.ExitCode) {
			return true
		}
	}

	return false
}

// lostSandbox reports whether the pod has lost its sandbox for good: one that never restarts does not get a
// second sandbox once containers ran in the first.
func (v *View) lostSandbox() bool {
	ownPolicy := func(c v1.Container) bool { return c.RestartPolicy != nil || len(c.RestartPolicyRules) > 0 }
	return v.Pod.Spec.RestartPolicy == v1.RestartPolicyNever && v.Ready() == nil &&
		len(v.instances)+len(v.recalled) > 0 && !slices.ContainsFunc(v.Pod.Spec.Containers, ownPolicy)
}

// changed reports whether the spec of a container has changed in place since the instance was made.
func (p *Pod) changed(c *v1.Container, instance *Container) bool {
	return instance.Hash != "" && instance.Hash != p.hash(c)
}

// hash is Hash, computed once for each image of a container: it takes longer than the rest of a decision.
func (p *Pod) hash(c *v1.Container) string {
	known, ok := p.hashes[c.Name]
	if !ok || known.image != c.Image {
		known = hashOf{image: c.Image, hash: Hash(c)}
		p.hashes[c.Name] = known
	}
	return known.hash
}

// hashOf is the hash of a container with that image.
type hashOf struct{ image, hash string }

// Hash identifies what of a container's spec may change in place, as kubelet computes it: another hash means
// another instance.
func Hash(c *v1.Container) string {
	data, err := json.Marshal(map[string]string{"name": c.Name, "image": c.Image})
	if err != nil {
		// Strings always marshal.
		return ""
	}

	h := fnv.New32a()
	fmt.Fprintf(h, "%v", dump.ForHash(data))
	return strconv.FormatUint(uint64(h.Sum32()), 16)
}
