package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/identity"
	"github.com/trivet-node/trivet/node/kubeletmetric"
	"github.com/trivet-node/trivet/node/lease"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/nodestatus"
)

// runNode starts what the cluster sees of the node: its identity, its Node object and its Lease. The Lease is
// renewed once the Node is registered, which owns it.
func (s *surroundings) runNode(parts *parts, events nodestatus.Events) *nodestatus.Reporter {
	requests := identity.RequestsOf(s.client)
	parts.run("identity", func(ctx context.Context) error {
		return s.identity.Run(ctx, requests, s.cfg.Identity.Rotate)
	})

	status := nodestatus.New(s.statusConfig(), kube.Nodes(s.client), s.runtime, events)
	s.pressures.Follow(status.Look)
	s.inUse.Follow(status.Look)
	parts.runSafe("node status", status.Run)

	renewer := lease.New(lease.Of(s.client), lease.Config{
		Node:     s.cfg.NodeName,
		Duration: s.cfg.Node.LeaseDuration,
		Owner:    status.Node,
		Log:      s.log,
	})

	parts.runSafe("lease", after(status.Registered(), renewer.Run))
	return status
}

// statusConfig is what the Node object shows, and when.
func (s *surroundings) statusConfig() nodestatus.Config {
	node := s.cfg.Node
	return nodestatus.Config{
		Name:          s.cfg.NodeName,
		Hostname:      s.cfg.NodeName,
		IPs:           s.ips,
		GivenIPs:      givenIPs(node),
		Labels:        node.Labels,
		Taints:        node.Taints,
		ProviderID:    node.ProviderID,
		ExternalCloud: node.ExternalCloud,
		Register:      node.Register,

		Version:          nodeVersion(),
		Port:             node.Port,
		DeclaredFeatures: declaredFeatures(s.cfg.Gates),

		RootDir:        s.cfg.RootDir,
		MaxPods:        maxPods(node.MaxPods, node.PodsPerCore, int64(machine.CPUs())),
		MaxImages:      node.MaxImages,
		Reserved:       s.cfg.Resources.Reserved,
		Thresholds:     s.cfg.Resources.EvictionHard,
		AllAllocatable: s.cfg.Resources.AllAllocatable,
		Pressure:       s.pressures.Now,
		InUse:          &s.inUse,

		ReportFrequency: node.ReportFrequency,
		CheckFrequency:  node.CheckFrequency,
		Reached:         s.metrics.Startup.Reached,
		Log:             s.log,
	}
}

// nodeVersion is what the Node shows as the version of kubelet.
func nodeVersion() string {
	return KubernetesVersion + "-trivet." + strings.TrimPrefix(program.Version, "v")
}

// newMetrics makes the agent's own metrics.
func newMetrics(node config.Config, cgroupV2 bool, started time.Time) *kubeletmetric.Set {
	cfg := kubeletmetric.Config{
		Started:       started,
		Booted:        machine.Booted(),
		NodeName:      node.NodeName,
		Version:       nodeVersion(),
		CgroupVersion: 1,
		Gates:         node.Gates.All,
	}
	if cgroupV2 {
		cfg.CgroupVersion = 2
	}
	return kubeletmetric.New(cfg)
}

// givenIPs are the addresses of --node-ip.
func givenIPs(node config.Node) []string {
	var out []string
	for _, ip := range node.IPs {
		out = append(out, ip.String())
	}
	return out
}

// declaredFeatures are those that the API server and the scheduler look for on a node and that this agent has
// (KEP-5328), sorted. What is not named here keeps pods that need it away, and refuses resizes that do.
func declaredFeatures(gates config.Gates) []string {
	out := []string{"InPlacePodVerticalScalingInitContainers"}
	if gates.ResizePods {
		out = append(out, "InPlacePodLevelResourcesVerticalScaling")
	}
	if gates.RestartAllContainers {
		out = append(out, "RestartAllContainersOnContainerExits")
	}

	slices.Sort(out)
	return out
}

// maxPods is the number of pods, at most so many for each CPU if that is not zero.
func maxPods(most, perCore, cores int64) int64 {
	if perCore == 0 {
		return most
	}
	return min(most, perCore*cores)
}
