package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/kube/event"
	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/eviction"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/memoryalarm"
	"github.com/trivet-node/trivet/node/nodestatus"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/threshold"
	"github.com/trivet-node/trivet/node/unit"
)

// balancedTree keeps the tiers of quality of service in balance when a pod comes or is resized.
type balancedTree struct {
	*podcgroup.Tree
	pods        *podsource.Source
	allocations *allocation.Ledger

	// took is told about work on a pod's group: create, destroy.
	took func(operation string, took time.Duration)
}

func newBalancedTree(p podInputs, took func(string, time.Duration)) balancedTree {
	return balancedTree{
		Tree:        p.tree,
		pods:        p.pods,
		allocations: p.allocations,
		took:        took,
	}
}

// Ensure makes the pod's group with its limits.
func (t balancedTree) Ensure(ctx context.Context, pod *v1.Pod) error {
	began := time.Now()
	defer func() { t.took("create", time.Since(began)) }()

	if err := t.Tree.Ensure(ctx, pod); err != nil {
		return err
	}
	return t.Balance(ctx, t.allocations.All(t.pods.List()))
}

// Narrow gives the pod's group the limits that the pod has.
func (t balancedTree) Narrow(ctx context.Context, pod *v1.Pod) error {
	if err := t.Tree.Narrow(ctx, pod); err != nil {
		return err
	}
	return t.Balance(ctx, t.allocations.All(t.pods.List()))
}

// Remove removes the pod's group.
func (t balancedTree) Remove(ctx context.Context, pod types.UID) error {
	began := time.Now()
	defer func() { t.took("destroy", time.Since(began)) }()
	return t.Tree.Remove(ctx, pod)
}

// newCgroups makes the groups above those of pods, by the driver that the runtime uses: the two must not
// differ.
func (s *surroundings) newCgroups(ctx context.Context, events *event.Recorder) (*podcgroup.Tree, error) {
	driver := s.runtime.CgroupDriver(ctx)
	if driver == "" {
		driver = s.cfg.Cgroups.Driver
	}
	if driver == "" {
		driver = "cgroupfs"
	}

	slices, err := slicesFor(driver, systemd.Running())
	if err != nil {
		return nil, err
	}

	tree, err := podcgroup.New(podcgroup.Config{
		Host:     s.cgroups,
		Slices:   slices,
		Driver:   driver,
		Root:     s.cfg.Cgroups.Root,
		PodPIDs:  s.cfg.Cgroups.PodPIDs,
		CPUQuota: s.cfg.Cgroups.CPUQuota,
		Memory:   s.cfg.Cgroups.Memory,
	})
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	if err := tree.Setup(ctx); err != nil {
		return nil, err
	}
	if err := s.bounder(tree, events)(ctx); err != nil {
		s.log.Warn("all pods together are not bounded yet; it will be tried again", "err", err)
	}

	enforced := announcer{events: events, node: s.cfg.NodeName}
	return tree, holdDaemons(ctx, tree, s.cfg.Cgroups.Daemons, enforced)
}

// announcer sends kubelet's events about what is held to its reserve.
type announcer struct {
	events nodestatus.Events
	node   string
}

func (a announcer) enforced(message string) {
	a.events.Record(event.Node(a.node), v1.EventTypeNormal, "NodeAllocatableEnforced", message)
}

func (a announcer) failed(message string) {
	a.events.Record(event.Node(a.node), v1.EventTypeWarning, "FailedNodeAllocatableEnforcement", message)
}

// enforcer limits a control group that exists (podcgroup.Tree).
type enforcer interface {
	Enforce(ctx context.Context, name string, limits cgroup.Limits) error
}

// holdDaemons holds the node's own daemons to what is reserved for them. A control group that is not there
// ends the start, as in kubelet.
func holdDaemons(ctx context.Context, tree enforcer, all []config.Daemons, enforced announcer) error {
	for _, d := range all {
		kind := d.Name
		if d.Compressible {
			kind += " Compressible"
		}

		if err := tree.Enforce(ctx, d.Group, limitsOf(d)); err != nil {
			message := fmt.Sprintf("Failed to enforce %s Cgroup Limits on %q: %v", kind, d.Group, err)
			enforced.failed(message)
			return &program.CantRunError{
				What: message,
				Do:   "make the control group before the agent starts, or change enforceNodeAllocatable",
			}
		}

		enforced.enforced("Updated limits on " + strings.ToLower(d.Name) + " cgroup " + d.Group)
	}

	return nil
}

// limitsOf are what daemons may have.
func limitsOf(d config.Daemons) cgroup.Limits {
	out := podcgroup.Whole(d.Reserved)
	if d.Compressible {
		return cgroup.Limits{CPUShares: out.CPUShares}
	}
	if d.Protected && out.Memory != 0 {
		out.MemoryMin = &out.Memory
	}
	return out
}

// slicesFor returns systemd's slices, nil on a machine without systemd, which the driver systemd cannot do
// without.
func slicesFor(driver string, running bool) (*unit.Slices, error) {
	switch {
	case running:
		return &unit.Slices{}, nil
	case driver == "systemd":
		return nil, &program.CantRunError{
			What: "the runtime's cgroup driver is systemd, but systemd is not PID 1 of this machine",
			Do:   "set the runtime's cgroup driver to cgroupfs",
		}
	}
	return nil, nil
}

// bounder bounds all pods together by what the node does not keep for its daemons, or by what it has. What
// eviction keeps free is not taken off: it is to act before the kernel does.
func (s *surroundings) bounder(tree *podcgroup.Tree, events *event.Recorder) func(context.Context) error {
	enforced := announcer{events: events, node: s.cfg.NodeName}
	return func(ctx context.Context) error {
		share, err := shareOfPods(s.cfg, s.machine)
		if err != nil {
			return fmt.Errorf("bound all pods: %w", err)
		}

		changed, err := tree.Bound(ctx, podcgroup.Whole(share))
		switch {
		case err != nil:
			enforced.failed(fmt.Sprintf("Failed to update Node Allocatable Limits %q: %v", tree.Names(), err))
		case changed:
			enforced.enforced("Updated Node Allocatable limit across pods")
		}

		return err
	}
}

// shareOfPods is what the machine has and, if pods are held to it, the configuration does not reserve. There
// must be some of each: zero would be no limit for the kernel.
func shareOfPods(cfg config.Config, m machine.Machine) (v1.ResourceList, error) {
	memory, err := m.Memory()
	if err != nil {
		return nil, err
	}

	tasks, err := m.MaxTasks()
	if err != nil {
		return nil, err
	}

	share := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(int64(machine.CPUs()), resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(memory.Total, resource.BinarySI),
		podcgroup.PIDs:    *resource.NewQuantity(tasks, resource.DecimalSI),
	}

	if err := checkReserved(cfg.Resources, share); err != nil || !cfg.Cgroups.HoldPods {
		return share, err
	}

	for name, amount := range share {
		amount.Sub(cfg.Resources.Reserved[name])
		if amount.Sign() <= 0 {
			return nil, &program.CantRunError{
				What: fmt.Sprintf("all %s of the machine is reserved", name),
				Do:   "leave some for pods in systemReserved, kubeReserved or reservedSystemCPUs",
			}
		}

		share[name] = amount
	}

	return share, nil
}

// checkReserved returns kubelet's error if more is reserved and kept free than the machine has.
func checkReserved(r config.Resources, capacity v1.ResourceList) error {
	for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
		have, kept := capacity[name], r.Reserved[name].DeepCopy()
		if name == v1.ResourceMemory {
			free := r.EvictionHard[threshold.Memory].Of(have.Value())
			kept.Add(*resource.NewQuantity(free, resource.BinarySI))
		}

		if kept.Cmp(have) > 0 {
			return &program.CantRunError{
				What: fmt.Sprintf("invalid Node Allocatable configuration. "+
					"Resource %q has a reservation of %v but capacity of %v. "+
					"Expected capacity >= reservation.", name, &kept, &have),
				Do: "lower systemReserved, kubeReserved or evictionHard",
			}
		}
	}

	return nil
}

// runEviction starts what keeps the node from running out of memory, disk space and processes.
func runEviction(
	s *surroundings,
	parts *parts,
	in podInputs,
	worker *podworker.Worker,
	reclaim reclaimers,
) error {
	// The group of all pods is the first of the tiers.
	group := in.tree.Tiers()[0]
	alarm, err := memoryalarm.Open(s.cgroups, group, s.log)
	if err != nil {
		return err
	}

	parts.runSafe("memory alarm", alarm.Run)

	evictor := eviction.New(eviction.Config{
		Node:        s.cfg.NodeName,
		Thresholds:  s.cfg.Eviction.Thresholds,
		Hold:        s.cfg.Eviction.PressureHold,
		MaxPodGrace: s.cfg.Eviction.MaxPodGrace,
		Pressures:   s.pressures,
		Observer: &eviction.Node{
			Machine:   s.machine,
			Cgroups:   s.cgroups,
			RootDir:   s.cfg.RootDir,
			PodsGroup: group,
			Runtime:   s.runtime,
			Log:       s.log,
		},
		Meter:      eviction.PodMeter{Runtime: s.runtime, Storage: in.storage},
		Pods:       evictable{worker, in.pods, in.allocations},
		Events:     in.events,
		Log:        s.log,
		Containers: reclaim.containers,
		Images:     reclaim.images,
		Alarm:      alarm,
		Metrics:    s.metrics.Pods,
	})

	parts.runSafe("eviction", evictor.Run)
	return nil
}

// reclaimers remove what nobody needs.
type reclaimers struct{ containers, images eviction.Reclaimer }

// evictable are the pods that may be evicted.
type evictable struct {
	*podworker.Worker
	source      *podsource.Source
	allocations *allocation.Ledger
}

// Active returns the pods that have not ended, with what they have been given; none before the API server has
// listed them.
func (e evictable) Active() []*v1.Pod {
	if !e.source.Settled(podsource.SourceAPI) {
		return nil
	}
	return e.allocations.All(slices.DeleteFunc(e.source.List(), func(p *v1.Pod) bool {
		return plan.Terminal(p.Status.Phase)
	}))
}
