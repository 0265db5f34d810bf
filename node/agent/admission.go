package agent

import (
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/admit"
)

// admission decides about pods that are new on the node, by what the node is at that time.
func (a *Agent) admission(allocatable v1.ResourceList) func(pod *v1.Pod, others []*v1.Pod) admit.Verdict {
	k := &a.cfg.Kubelet
	node := admit.Node{
		Allocatable:    allocatable,
		Features:       declaredFeatures(k.Enabled),
		AllowedSysctls: k.AllowedUnsafeSysctls,
		AppArmor:       appArmorEnabled("/sys/module/apparmor/parameters/enabled"),
		StrictGroups:   a.info.Features.GetSupplementalGroupsPolicy(),
		PodResources:   k.Enabled("PodLevelResources"),
	}
	return func(pod *v1.Pod, others []*v1.Pod) admit.Verdict {
		now := node
		now.Object, now.Pressure = a.heart.Known(), a.heart.Pressure()
		return admit.Check(now, pod, others)
	}
}

// appArmorEnabled tells whether the kernel confines by AppArmor profiles.
func appArmorEnabled(parameter string) bool {
	data, err := os.ReadFile(parameter)
	return err == nil && strings.HasPrefix(string(data), "Y")
}
