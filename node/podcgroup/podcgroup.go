// Package podcgroup keeps the control groups above containers: kubepods, its burstable and besteffort tiers, and one group per pod
// with the pod's limits, named as kubelet names them, on cgroup v1 and v2. Containers' own groups are the runtime's.
//
// With the systemd driver groups carry slice names (kubepods-burstable-podUID.slice) so that the runtime's scopes land in them; the
// slices' limits are written to their files.
package podcgroup

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/node/criconfig"
)

// Tree is the node's tree of pod groups.
type Tree struct {
	host    *cgroup.Host
	root    string // absolute path of the group that holds kubepods, "/" by default
	systemd bool

	mu        sync.Mutex // guards what follows
	burstable uint64     // shares of the burstable tier as they were written last
}

// New returns the tree below root ("" or "/" for the hierarchy's root; kubelet's cgroupRoot) for the driver "cgroupfs" or "systemd".
func New(host *cgroup.Host, root, driver string) (*Tree, error) {
	switch driver {
	case "", "cgroupfs", "systemd":
	default:
		return nil, fmt.Errorf("cgroup driver %q: must be cgroupfs or systemd", driver)
	}
	return &Tree{host: host, root: path.Clean("/" + root), systemd: driver == "systemd"}, nil
}

// tier is the path of names from the root to the QoS tier of pods: guaranteed pods are directly in kubepods.
func tier(qos v1.PodQOSClass) []string {
	switch qos {
	case v1.PodQOSBurstable:
		return []string{"kubepods", "burstable"}
	case v1.PodQOSBestEffort:
		return []string{"kubepods", "besteffort"}
	default:
		return []string{"kubepods"}
	}
}

// group is the path in the hierarchy of the group with these names.
func (t *Tree) group(names ...string) string {
	if !t.systemd {
		return path.Join(append([]string{t.root}, names...)...)
	}
	full, at := t.root, systemdPrefix(t.root)
	for _, n := range names {
		at = strings.TrimPrefix(at+"-"+strings.ReplaceAll(n, "-", "_"), "-")
		full = path.Join(full, at+".slice")
	}
	return full
}

// systemdPrefix is what the names of slices below root begin with: systemd reads the nesting from the dashes.
func systemdPrefix(root string) string {
	base := path.Base(root)
	if root == "/" {
		return ""
	}
	return strings.TrimSuffix(base, ".slice")
}

// Parent is the cgroup_parent for the runtime (CRI LinuxPodSandboxConfig): a path, or with systemd the name of the slice.
func (t *Tree) Parent(pod *v1.Pod) string {
	g := t.podGroup(criconfig.QOS(pod), pod.UID)
	if t.systemd {
		return path.Base(g)
	}
	return g
}

// Group is the pod's group as a path from the hierarchy's root.
func (t *Tree) Group(pod *v1.Pod) string { return t.podGroup(criconfig.QOS(pod), pod.UID) }

func (t *Tree) podGroup(qos v1.PodQOSClass, uid types.UID) string {
	return t.group(append(tier(qos), "pod"+string(uid))...)
}

// Setup makes kubepods and its tiers; allocatable (optional) bounds all pods together. Besteffort gets the least CPU share; burstable keeps
// what it has until Balance.
func (t *Tree) Setup(allocatable v1.ResourceList) error {
	all := cgroup.Limits{}
	if cpu, ok := allocatable[v1.ResourceCPU]; ok {
		all.CPUShares = uint64(criconfig.Shares(cpu.MilliValue()))
	}
	if memory, ok := allocatable[v1.ResourceMemory]; ok {
		all.Memory = memory.Value()
	}
	if pids, ok := allocatable[v1.ResourceName("pid")]; ok {
		all.PIDs = pids.Value()
	}
	for _, g := range []struct {
		names  []string
		limits cgroup.Limits
	}{
		{tier(v1.PodQOSGuaranteed), all},
		{tier(v1.PodQOSBestEffort), cgroup.Limits{CPUShares: uint64(criconfig.Shares(0))}},
		{tier(v1.PodQOSBurstable), cgroup.Limits{}},
	} {
		if err := t.ensure(t.group(g.names...), g.limits); err != nil {
			return err
		}
	}
	return nil
}

// Balance gives the burstable tier the CPU share of all that its pods request, so that each is worth its request beside the guaranteed pods,
// which are the tier's siblings. It is to be repeated when pods come and go.
func (t *Tree) Balance(pods []*v1.Pod) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	want := burstableShares(pods)
	if want == t.burstable {
		return nil
	}
	group := t.group(tier(v1.PodQOSBurstable)...)
	if err := t.host.Apply(group, cgroup.Limits{CPUShares: want}); err != nil {
		return fmt.Errorf("balance cgroup %s: %w", group, err)
	}
	t.burstable = want
	return nil
}

func (t *Tree) ensure(group string, limits cgroup.Limits) error {
	if err := t.host.Create(group); err != nil {
		return fmt.Errorf("cgroup %s: %w", group, err)
	}
	if err := t.host.Apply(group, limits); err != nil {
		return fmt.Errorf("limit cgroup %s: %w", group, err)
	}
	return nil
}

// Ensure makes the pod's group and writes its limits; repeating it after the pod's resources changed is how they are updated.
func (t *Tree) Ensure(pod *v1.Pod, pidsLimit int64) error {
	limits := Limits(pod)
	if pidsLimit > 0 {
		limits.PIDs = pidsLimit
	}
	return t.ensure(t.Group(pod), limits)
}

// Remove kills what is left in the pod's group, in whichever tier it is, and removes it. What is not there is success.
func (t *Tree) Remove(ctx context.Context, uid types.UID) error {
	for _, qos := range []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort} {
		group := t.podGroup(qos, uid)
		if !t.host.Exists(group) {
			continue
		}
		if err := t.host.Kill(ctx, group); err != nil {
			return fmt.Errorf("kill what is left of pod %s in cgroup %s: %w", uid, group, err)
		}
		if err := t.host.Remove(ctx, group); err != nil {
			return fmt.Errorf("remove cgroup %s: %w", group, err)
		}
	}
	return nil
}

// Pods lists the UIDs that have a group in any hierarchy, to find those whose pod has gone.
func (t *Tree) Pods() ([]types.UID, error) {
	var uids []types.UID
	for _, qos := range []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort} {
		names := tier(qos)
		children, err := t.host.Children(t.group(names...))
		if err != nil {
			return nil, err
		}
		for _, c := range children {
			if uid, ok := t.uid(c, names); ok && !slices.Contains(uids, uid) {
				uids = append(uids, uid)
			}
		}
	}
	return uids, nil
}

// uid reads the pod's UID from the name of a directory in the tier.
func (t *Tree) uid(name string, tier []string) (types.UID, bool) {
	if !t.systemd {
		uid, ok := strings.CutPrefix(name, "pod")
		return types.UID(uid), ok && uid != ""
	}
	prefix := strings.TrimSuffix(path.Base(t.group(tier...)), ".slice") + "-pod"
	uid, ok := strings.CutPrefix(strings.TrimSuffix(name, ".slice"), prefix)
	return types.UID(strings.ReplaceAll(uid, "_", "-")), ok && uid != "" && strings.HasSuffix(name, ".slice")
}
