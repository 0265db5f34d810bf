// Package podcgroup keeps the control groups above containers: kubepods, its tiers burstable and besteffort,
// and one group for each pod with the pod's limits. They are named as kubelet names them, on cgroup v1 and
// v2. The groups of containers are the runtime's.
//
// With the driver cgroupfs the groups are directories. With systemd they are slices
// (kubepods-burstable-podUID.slice), so that the runtime's scopes are made in them: systemd makes them and
// keeps their limits, and what it does not know of is written by file.
package podcgroup

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/systemd"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/unit"
)

// Config is what a Tree needs.
type Config struct {
	Host     *cgroup.Host
	Slices   *unit.Slices // nil where systemd does not run
	Driver   string       // cgroupfs or systemd
	Root     string       // kubelet's cgroupRoot: "" or "/" for the root of the hierarchies
	PodPIDs  int64        // most processes of each pod; 0 or less: no limit
	CPUQuota bool         // whether limits of CPU are enforced (cpuCFSQuota)

	// Memory is how memory is throttled and kept from being reclaimed, on cgroup v2.
	Memory podspec.MemoryQoS
}

// Tree is the node's tree of pod groups.
type Tree struct {
	cfg      Config
	groups   driver
	names    naming
	inactive []naming // of the driver that is not in use, but may have been

	// mu guards what follows.
	mu       sync.Mutex
	balanced balance // what was written last
	bounded  bool    // whether all pods together are bounded
}

// New returns the tree. It makes no group.
func New(cfg Config) (*Tree, error) {
	t := &Tree{
		cfg: cfg,
		groups: driver{
			host:    cfg.Host,
			slices:  cfg.Slices,
			systemd: cfg.Driver == "systemd",
		},
	}

	byPath := newPaths(cfg.Root)
	bySlice, err := newSlices(cfg.Root)

	switch cfg.Driver {
	case "cgroupfs":
		t.names = byPath
		if err == nil {
			t.inactive = []naming{bySlice}
		}

		// Else systemd has never had this root.
		return t, nil

	case "systemd":
		if err != nil {
			return nil, fmt.Errorf("cgroupRoot %q with the cgroup driver systemd: %w", cfg.Root, err)
		}

		t.names = bySlice
		t.inactive = []naming{byPath}
		return t, nil
	}

	return nil, fmt.Errorf("cgroup driver %q: must be cgroupfs or systemd", cfg.Driver)
}

// Parent returns the cgroup_parent of the pod's sandbox (CRI's LinuxPodSandboxConfig): a path or, with
// systemd, the name of the slice.
func (t *Tree) Parent(pod *v1.Pod) string { return t.names.parent(t.group(pod)) }

// group returns the pod's group as a path from the root of the hierarchies.
func (t *Tree) group(pod *v1.Pod) string { return podGroup(t.names, podspec.QOS(pod), pod.UID) }

func podGroup(names naming, qos v1.PodQOSClass, uid types.UID) string {
	return names.group(append(tier(qos), "pod"+string(uid))...)
}

// check refuses a UID that would lead out of the tree: that of a static pod may be anything.
func check(uid types.UID) error {
	if uid == "" || strings.Contains(string(uid), "/") {
		return fmt.Errorf("cgroup of pod %q: the UID cannot be part of a name", uid)
	}
	return nil
}

// Setup makes kubepods and its tiers. Besteffort gets the least CPU share; burstable keeps the one it has
// until Balance is called.
func (t *Tree) Setup(ctx context.Context) error {
	nothing := unprotected(t.cfg)
	if err := t.groups.ensure(ctx, t.names.group(tier(v1.PodQOSGuaranteed)...), nothing); err != nil {
		return err
	}
	least := cgroup.Limits{CPUShares: cgroup.Shares(0)}
	if err := t.groups.ensure(ctx, t.names.group(tier(v1.PodQOSBestEffort)...), least); err != nil {
		return err
	}
	return t.groups.ensure(ctx, t.names.group(tier(v1.PodQOSBurstable)...), nothing)
}

// Names returns the names from the root to the group that all pods are in, as kubelet's messages have them.
func (t *Tree) Names() []string {
	var out []string
	for name := range strings.SplitSeq(path.Join(t.cfg.Root, "kubepods"), "/") {
		if name != "" {
			out = append(out, strings.TrimSuffix(name, systemd.SliceSuffix))
		}
	}
	return out
}

// Bound limits all pods together, once, and reports whether it did. Repeat it until it succeeds: the kernel
// refuses a new limit while pods use more than that.
func (t *Tree) Bound(ctx context.Context, all cgroup.Limits) (changed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bounded {
		return false, nil
	}
	if err := t.groups.ensure(ctx, t.names.group(tier(v1.PodQOSGuaranteed)...), all); err != nil {
		return false, fmt.Errorf("bound all pods: %w", err)
	}
	t.bounded = true
	return true, nil
}

// Balance gives the burstable tier the CPU share of all that its pods request, so that each counts with its
// request beside the guaranteed pods, which are the tier's siblings, and both tiers the memory that they
// request, if that is kept from being reclaimed. Repeat it when pods come and go and are resized; the pods
// are to have the resources that are allocated to them.
func (t *Tree) Balance(ctx context.Context, pods []*v1.Pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()

	protect := t.cfg.Memory.Tiered && t.cfg.Host.V2
	want := balanceOf(pods, protect)
	if want == t.balanced {
		return nil
	}

	// A group is protected only as far as those above it are.
	burstable := cgroup.Limits{CPUShares: want.shares}
	if protect {
		all := cgroup.Limits{MemoryMin: new(want.guaranteed + want.burstable), MemoryLow: &want.burstable}
		if err := t.groups.ensure(ctx, t.names.group(tier(v1.PodQOSGuaranteed)...), all); err != nil {
			return fmt.Errorf("balance pods: %w", err)
		}

		burstable.MemoryLow = &want.burstable
	}

	if err := t.groups.ensure(ctx, t.names.group(tier(v1.PodQOSBurstable)...), burstable); err != nil {
		return fmt.Errorf("balance pods: %w", err)
	}

	t.balanced = want
	return nil
}

// Protected returns how many bytes of memory of guaranteed and of burstable pods are kept from being
// reclaimed: 0 unless the configuration says so.
func (t *Tree) Protected() (guaranteed, burstable int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.balanced.guaranteed, t.balanced.burstable
}

// Ensure makes the pod's group and gives it exactly the limits that the pod has.
func (t *Tree) Ensure(ctx context.Context, pod *v1.Pod) error {
	return t.set(ctx, pod, t.groups.ensure)
}

// set gives the pod's group all limits that the pod has.
func (t *Tree) set(
	ctx context.Context, pod *v1.Pod, apply func(context.Context, string, cgroup.Limits) error,
) error {
	if err := check(pod.UID); err != nil {
		return err
	}
	limits, err := groupLimits(t.cfg, pod)
	if err != nil {
		return err
	}

	group := t.group(pod)
	err = apply(ctx, group, limits)
	if limits.CPUQuota > 0 && !t.cfg.Host.V2 && errors.Is(err, unix.EINVAL) {
		// Runtimes keep the groups of containers that have ended.
		if err := unbind(t.cfg.Host, group); err != nil {
			return err
		}

		err = apply(ctx, group, limits)
	}

	return err
}

// Remove kills what is left in the pod's group, in whichever tier it is, and removes it. A group that is not
// there is a success. A group of the other driver is removed as well, but only when nothing runs in it: it
// may be that of a second node agent.
func (t *Tree) Remove(ctx context.Context, uid types.UID) error {
	if err := check(uid); err != nil {
		return err
	}

	for _, qos := range tiers {
		group := podGroup(t.names, qos, uid)
		if !t.cfg.Host.Exists(group) && !t.groups.isUnit(group) {
			continue
		}
		if err := t.cfg.Host.Kill(ctx, group); err != nil {
			return fmt.Errorf("kill what is left of pod %s in cgroup %s: %w", uid, group, err)
		}
		if err := t.groups.remove(ctx, group); err != nil {
			return fmt.Errorf("cgroup of pod %s: %w", uid, err)
		}
	}

	for _, names := range t.inactive {
		for _, qos := range tiers {
			if err := t.groups.removeIdle(ctx, podGroup(names, qos, uid)); err != nil {
				return fmt.Errorf("cgroup of pod %s: %w", uid, err)
			}
		}
	}

	return nil
}

// Pods returns the UIDs that have a group in any hierarchy, of either driver, or a slice that systemd knows,
// among them those whose pod has gone.
func (t *Tree) Pods() ([]types.UID, error) {
	seen := map[types.UID]bool{}
	var uids []types.UID
	for _, names := range append([]naming{t.names}, t.inactive...) {
		for _, qos := range tiers {
			children, err := t.children(names.group(tier(qos)...))
			if err != nil {
				return nil, err
			}

			for _, c := range children {
				if uid, ok := names.uid(c, tier(qos)); ok && !seen[uid] {
					seen[uid] = true
					uids = append(uids, uid)
				}
			}
		}
	}

	return uids, nil
}

// children returns the names of the groups directly below a group, and of slices there that have no
// directory.
func (t *Tree) children(group string) ([]string, error) {
	children, err := t.cfg.Host.Children(group)
	if err != nil || t.cfg.Slices == nil {
		return children, err
	}
	units, err := systemd.TransientUnits()
	for _, unit := range units {
		if _, isSlice := t.groups.sliceOf(path.Join(group, unit)); isSlice {
			children = append(children, unit)
		}
	}
	return children, err
}

// Retire removes the groups of the driver that is not in use any more, once no process is left in them.
func (t *Tree) Retire(ctx context.Context) error {
	var errs []error
	for _, names := range t.inactive {
		pids, err := t.cfg.Host.Procs(names.group(tier(v1.PodQOSGuaranteed)...))
		if err != nil || len(pids) > 0 {
			errs = append(errs, err)
			continue
		}

		for _, qos := range []v1.PodQOSClass{v1.PodQOSBurstable, v1.PodQOSBestEffort, v1.PodQOSGuaranteed} {
			errs = append(errs, t.groups.removeIdle(ctx, names.group(tier(qos)...)))
		}
	}

	return errors.Join(errs...)
}
