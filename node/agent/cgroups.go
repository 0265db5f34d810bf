package agent

import (
	"context"
	"errors"
	"fmt"
	goruntime "runtime"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/program"
	"github.com/trivet-node/trivet/internal/systemd"
	"github.com/trivet-node/trivet/node/heartbeat"
	"github.com/trivet-node/trivet/node/kubeletconfig"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/unit"
)

// groups keeps the tiers in balance when a pod comes.
type groups struct {
	*podcgroup.Tree
	pods *podsource.Source
}

// Ensure makes the pod's group with its limits.
func (g groups) Ensure(ctx context.Context, pod *v1.Pod) error {
	if err := g.Tree.Ensure(ctx, pod); err != nil {
		return err
	}
	return g.Balance(ctx, g.pods.List())
}

// makeCgroups makes the groups above those of pods, by the driver that the runtime uses: the two must not
// differ.
func (a *Agent) makeCgroups(ctx context.Context) error {
	driver := a.runtime.CgroupDriver(ctx)
	if driver == "" {
		driver = a.cfg.Kubelet.CgroupDriver
	}
	if driver == "" {
		driver = "cgroupfs"
	}

	slices, err := slicesOf(driver)
	if err != nil {
		return err
	}

	cfg := podcgroup.Config{
		Host:     a.host,
		Slices:   slices,
		Driver:   driver,
		Root:     a.cfg.Kubelet.CgroupRoot,
		PodPIDs:  *a.cfg.Kubelet.PodPidsLimit,
		CPUQuota: *a.cfg.Kubelet.CPUCFSQuota,
	}
	if a.cgroups, err = podcgroup.New(cfg); err != nil {
		return &program.UsageError{Err: err}
	}
	if err := a.cgroups.Setup(ctx); err != nil {
		return err
	}
	if err := a.boundPods(ctx); err != nil {
		a.log.Warn("bound all pods together; it will be tried again", "err", err)
	}

	return nil
}

// slicesOf is nil on a machine without systemd, which the driver systemd cannot do without.
func slicesOf(driver string) (*unit.Slices, error) {
	switch {
	case systemd.Running():
		return &unit.Slices{}, nil
	case driver == "systemd":
		return nil, &program.CantRunError{
			What: "the runtime's cgroup driver is systemd, but systemd is not PID 1 of this machine",
			Do:   "set the runtime's cgroup driver to cgroupfs",
		}
	}
	return nil, nil
}

// boundPods bounds all pods together by what the node does not keep for its daemons. What eviction keeps free
// is not taken off: it is to act before the kernel does.
func (a *Agent) boundPods(ctx context.Context) error {
	whole, err := shareOfPods(&a.cfg.Kubelet)
	if err != nil {
		return fmt.Errorf("bound all pods: %w", err)
	}
	return a.cgroups.Bound(ctx, podcgroup.Whole(whole))
}

// shareOfPods is what the machine has and the configuration does not reserve. There must be some of each:
// zero would be no limit for the kernel.
func shareOfPods(k *kubeletconfig.Configuration) (v1.ResourceList, error) {
	memory, _, err := heartbeat.Memory()
	if err != nil {
		return nil, err
	}

	pids, err := heartbeat.MaxPIDs()
	if err != nil {
		return nil, err
	}

	kept, err := k.Reserved()
	if err != nil {
		return nil, err
	}

	share := v1.ResourceList{
		v1.ResourceCPU:    *resource.NewQuantity(int64(goruntime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory: *resource.NewQuantity(memory, resource.BinarySI),
		podcgroup.PIDs:    *resource.NewQuantity(pids, resource.DecimalSI),
	}

	for name, amount := range share {
		amount.Sub(kept[name])
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

// tendCgroups removes the groups of pods that are not to be kept and of a driver that was in use before, and
// limits anew the groups that all pods are in.
func (a *Agent) tendCgroups(ctx context.Context, keep func(types.UID) bool) error {
	uids, err := a.cgroups.Pods()
	if err != nil {
		return err
	}

	var errs []error
	for _, uid := range uids {
		if !keep(uid) {
			errs = append(errs, a.cgroups.Remove(ctx, uid))
		}
	}

	errs = append(errs, a.cgroups.Retire(ctx), a.boundPods(ctx), a.cgroups.Balance(ctx, a.source.List()))
	return errors.Join(errs...)
}
