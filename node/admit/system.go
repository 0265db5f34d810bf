package admit

import (
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/component-helpers/nodedeclaredfeatures"
	resources "k8s.io/component-helpers/resource"
)

// unserved names what this agent cannot do yet: a pod that needs it must not run without it.
func unserved(pod *v1.Pod) Verdict {
	if len(pod.Spec.ResourceClaims) > 0 {
		return reject("PodFeatureUnsupported",
			"this node agent does not serve dynamic resource allocation (resourceClaims)")
	}
	return Verdict{}
}

// system is about the operating system and the runtime.
func system(node Node, pod *v1.Pod) Verdict {
	if node.Object == nil {
		return reject("InvalidNodeInfo", "Kubelet cannot get node info.")
	}

	if os, ok := pod.Labels[v1.LabelOSStable]; ok && os != string(v1.Linux) {
		return reject("PodOSSelectorNodeLabelDoesNotMatch",
			"Failed to admit pod as the `kubernetes.io/os` label doesn't match node label")
	}

	if pod.Spec.OS != nil && pod.Spec.OS.Name != v1.Linux {
		return reject("PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS")
	}

	security := pod.Spec.SecurityContext
	if security != nil && security.SupplementalGroupsPolicy != nil &&
		*security.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict && !node.StrictGroups {
		return reject("SupplementalGroupsPolicyNotSupported",
			"SupplementalGroupsPolicy=Strict is not supported in this node")
	}

	return Verdict{}
}

// appArmor refuses a pod that asks for a profile where none can confine it. One that has begun is not asked
// again.
func appArmor(node Node, pod *v1.Pod) Verdict {
	if pod.Status.Phase != "" && pod.Status.Phase != v1.PodPending || !wantsAppArmor(pod) {
		return Verdict{}
	}
	if !node.AppArmor {
		return reject("AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host")
	}
	named := every(pod, func(c *v1.SecurityContext) bool { return c == nil || hasName(c.AppArmorProfile) })
	if !named || pod.Spec.SecurityContext != nil && !hasName(pod.Spec.SecurityContext.AppArmorProfile) {
		return reject("AppArmor", "Cannot enforce AppArmor: invalid empty AppArmor profile name")
	}
	return Verdict{}
}

func wantsAppArmor(pod *v1.Pod) bool {
	confined := func(p *v1.AppArmorProfile) bool {
		return p != nil &&
			p.Type != v1.AppArmorProfileTypeUnconfined
	}
	if pod.Spec.SecurityContext != nil && confined(pod.Spec.SecurityContext.AppArmorProfile) {
		return true
	}
	if !every(pod, func(c *v1.SecurityContext) bool { return c == nil || !confined(c.AppArmorProfile) }) {
		return true
	}

	for key, value := range pod.Annotations {
		if strings.HasPrefix(key, v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix) &&
			value != v1.DeprecatedAppArmorBetaProfileNameUnconfined {
			return true
		}
	}

	return false
}

func hasName(p *v1.AppArmorProfile) bool {
	return p == nil || p.Type != v1.AppArmorProfileTypeLocalhost ||
		p.LocalhostProfile != nil && strings.TrimSpace(*p.LocalhostProfile) != ""
}

// release is the version of Kubernetes by which a pod's needs are judged.
var release = version.MustParseSemantic("1.37.2")

// features refuses a pod that needs what the node has not declared (KEP-5328).
func features(node Node, pod *v1.Pod) Verdict {
	const reason = "PodFeatureUnsupported"
	if resources.IsPodLevelResourcesSet(pod) && !node.PodResources {
		return reject("PodLevelResourcesNotSupported", "PodLevelResources feature gate is disabled")
	}

	framework := nodedeclaredfeatures.DefaultFramework
	needs, err := framework.InferForPodScheduling(&nodedeclaredfeatures.PodInfo{Spec: &pod.Spec,
		Status: &pod.Status}, release)
	if err != nil {
		return reject(reason, "Failed to infer pod's feature requirements: %v", err)
	}

	match, err := framework.MatchNodeFeatureSet(needs, framework.TryMap(node.Features))
	if err != nil {
		return reject(reason, "Failed to match pod's feature requirements against the node: %v", err)
	}

	if !match.IsMatch {
		return reject(reason, "Pod requires node features that are not available: %s",
			strings.Join(match.UnsatisfiedRequirements, ", "))
	}

	return Verdict{}
}
