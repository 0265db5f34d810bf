package agent

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
	"github.com/trivet-node/trivet/node/config"
	"github.com/trivet-node/trivet/node/eviction"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/memoryalarm"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/unit"
)

// balancedTree keeps the tiers of quality of service in balance when a pod comes.
type balancedTree struct {
	*podcgroup.Tree
	pods *podsource.Source

	// took is told about work on a pod's group: create, destroy.
	took func(operation string, took time.Duration)
}

// Ensure makes the pod's group with its limits.
func (t balancedTree) Ensure(ctx context.Context, pod *v1.Pod) error {
	began := time.Now()
	defer func() { t.took("create", time.Since(began)) }()

	if err := t.Tree.Ensure(ctx, pod); err != nil {
		return err
	}
	return t.Balance(ctx, t.pods.List())
}

// Remove removes the pod's group.
func (t balancedTree) Remove(ctx context.Context, pod types.UID) error {
	began := time.Now()
	defer func() { t.took("destroy", time.Since(began)) }()
	return t.Tree.Remove(ctx, pod)
}

// newCgroups makes the groups above those of pods, by the driver that the runtime uses: the two must not
// differ.
func (s *surroundings) newCgroups(ctx context.Context) (*podcgroup.Tree, error) {
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
	})
	if err != nil {
		return nil, &program.UsageError{Err: err}
	}
	if err := tree.Setup(ctx); err != nil {
		return nil, err
	}
	if err := s.bounder(tree)(ctx); err != nil {
		s.log.Warn("all pods together are not bounded yet; it will be tried again", "err", err)
	}

	return tree, nil
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

// bounder bounds all pods together by what the node does not keep for its daemons. What eviction keeps free
// is not taken off: it is to act before the kernel does.
func (s *surroundings) bounder(tree *podcgroup.Tree) func(context.Context) error {
	return func(ctx context.Context) error {
		share, err := shareOfPods(s.cfg.Resources, s.machine)
		if err != nil {
			return fmt.Errorf("bound all pods: %w", err)
		}
		return tree.Bound(ctx, podcgroup.Whole(share))
	}
}

// shareOfPods is what the machine has and the configuration does not reserve. There must be some of each:
// zero would be no limit for the kernel.
func shareOfPods(r config.Resources, m machine.Machine) (v1.ResourceList, error) {
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

	for name, amount := range share {
		amount.Sub(r.Reserved[name])
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

// runEviction starts what keeps the node from running out of memory, disk space and processes.
func runEviction(s *surroundings, parts *parts, in podInputs, worker *podworker.Worker) error {
	group := in.tree.Whole()
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
		Meter:  eviction.PodMeter{Runtime: s.runtime},
		Pods:   evictable{Worker: worker, source: in.pods},
		Events: in.events,
		Log:    s.log,
		Alarm:  alarm,
	})

	parts.runSafe("eviction", evictor.Run)
	return nil
}

// evictable are the pods that may be evicted.
type evictable struct {
	*podworker.Worker
	source *podsource.Source
}

// Active returns the pods that have not ended, none before the API server has listed them.
func (e evictable) Active() []*v1.Pod {
	if !e.source.Settled(podsource.SourceAPI) {
		return nil
	}
	return slices.DeleteFunc(e.source.List(), func(p *v1.Pod) bool {
		return plan.Terminal(p.Status.Phase)
	})
}
