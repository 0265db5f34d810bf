package agent

import (
	"os"
	goruntime "runtime"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/heartbeat"
)

// heartConfig is what the Node object shows, and when.
func (a *Agent) heartConfig(reserved v1.ResourceList) heartbeat.Config {
	k := &a.cfg.Kubelet
	return heartbeat.Config{
		Name:             a.cfg.NodeName,
		IPs:              a.ips,
		Hostname:         a.cfg.NodeName,
		Labels:           a.cfg.Labels,
		Taints:           k.RegisterWithTaints,
		ProviderID:       a.cfg.ProviderID,
		Register:         *k.RegisterNode,
		Version:          KubernetesVersion + "-trivet." + strings.TrimPrefix(program.Version, "v"),
		Port:             k.Port,
		RootDir:          a.cfg.RootDir,
		MaxPods:          maxPods(k.MaxPods, int64(k.PodsPerCore), int64(goruntime.NumCPU())),
		MaxImages:        int(*k.NodeStatusMaxImages),
		Reserved:         reserved,
		Thresholds:       k.Thresholds(),
		AllAllocatable:   a.cfg.IgnoreEviction,
		PressureHold:     k.EvictionTransitionPeriod.Duration,
		LeaseDuration:    time.Duration(k.NodeLeaseDurationSeconds) * time.Second,
		ReportFrequency:  k.NodeStatusReportFrequency.Duration,
		CheckFrequency:   k.NodeStatusUpdateFrequency.Duration,
		ExternalCloud:    a.cfg.CloudProvider != "",
		GivenIPs:         a.givenIPs(),
		DeclaredFeatures: declaredFeatures(k.Enabled),
	}
}

// givenIPs are the addresses of --node-ip that say more than which family is preferred.
func (a *Agent) givenIPs() []string {
	var out []string
	for _, ip := range a.cfg.NodeIPs {
		if !ip.IsUnspecified() {
			out = append(out, ip.String())
		}
	}
	return out
}

// declaredFeatures are those that the scheduler looks for on a node and that this agent has (KEP-5328).
// What is not named here, such as resizing in place, keeps pods that need it away.
func declaredFeatures(enabled func(gate string) bool) []string {
	var out []string
	for _, name := range []string{"RestartAllContainersOnContainerExits"} {
		if enabled(name) {
			out = append(out, name)
		}
	}
	return out
}

// maxPods is the number of pods, at most so many for each CPU if that is not zero.
func maxPods(most, perCore, cores int64) int64 {
	if perCore == 0 {
		return most
	}
	return min(most, perCore*cores)
}

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

// appArmorEnabled reports whether the kernel confines by AppArmor profiles.
func appArmorEnabled(parameter string) bool {
	data, err := os.ReadFile(parameter)
	return err == nil && strings.HasPrefix(string(data), "Y")
}
