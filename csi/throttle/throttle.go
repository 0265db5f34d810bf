// Package throttle holds pods to limits of what they read from and write to block devices, by the control
// groups that kubelet, or a node agent in its place, has them in. Nobody else is asked to: whatever runtime
// makes the groups, they are found by name.
//
// On cgroup v2 the limits of a device are those of the group of all pods: they hold for all that use the
// device together, for containers that are yet to start, and for what the kernel writes back later. On v1 a
// limit of a group is not one of the groups in it, so that each group of a pod that uses the device has the
// limits by itself, and the root group, for which the kernel writes back, once more.
package throttle

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/csi/volume"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Throttle knows where pods are. It is safe for concurrent use.
type Throttle struct {
	host       *cgroup.Host
	controller string
	root       string // group below which pods are looked for

	// mu guards tops.
	mu   sync.Mutex
	tops []string // the groups that have all pods in them, as they were found last
}

// New looks for pods below a group, "/" for those of the whole machine. It fails where the kernel has no
// limits of input and output.
func New(host *cgroup.Host, root string) (*Throttle, error) {
	controller := "blkio"
	if host.V2 {
		controller = "io"
	}
	if !host.Controller(controller) {
		return nil, fmt.Errorf("control groups have no controller %s", controller)
	}

	// On v1 a kernel can have the controller without limits. On v2 the root has no file to look for.
	if !host.V2 {
		file := filepath.Join(host.Dir(controller, "/"), "blkio.throttle.read_bps_device")
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("controller %s limits nothing: %w", controller, err)
		}
	}

	return &Throttle{host: host, controller: controller, root: root}, nil
}

// Apply has the pods, by their UIDs, held to the limits of a device, in place of earlier ones. A device that
// is gone is success. Where there are no groups of pods at all there must be no pods.
func (t *Throttle) Apply(device uint64, l volume.Limits, pods []string) error {
	err := t.apply(device, l, pods)
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func (t *Throttle) apply(device uint64, l volume.Limits, pods []string) error {
	if len(t.find()) == 0 && len(pods) > 0 && l != (volume.Limits{}) {
		return fmt.Errorf("no control group kubepods or kubepods.slice is found for pod %s: the driver has"+
			" to see /sys/fs/cgroup of the machine", pods[0])
	}

	limits := limitsOf(l)
	return t.visit(pods, func(group string) error {
		if t.host.V2 && limits != (cgroup.IOLimits{}) {
			if err := t.host.EnableIO(group); err != nil {
				return err
			}
		}
		return t.host.LimitIO(group, device, limits)
	})
}

// Differing returns the groups that do not have just these limits of a device, of those that Apply would
// give them to. It changes nothing.
func (t *Throttle) Differing(device uint64, l volume.Limits, pods []string) (groups []string, err error) {
	err = t.visit(pods, func(group string) error {
		has, err := t.host.HasIOLimits(group, device, limitsOf(l))
		if err == nil && !has {
			groups = append(groups, group)
		}
		return err
	})
	return groups, err
}

func limitsOf(l volume.Limits) cgroup.IOLimits {
	return cgroup.IOLimits{
		ReadBytes:  uint64(l.ReadBytes),
		WriteBytes: uint64(l.WriteBytes),
		ReadOps:    uint64(l.ReadOps),
		WriteOps:   uint64(l.WriteOps),
	}
}

// visit calls f for the groups whose limits count for pods: on v2 for those of all pods together, on v1 for
// each group of each pod, and for the one in which is written back for all of them. A group that goes
// meanwhile is no error.
func (t *Throttle) visit(pods []string, f func(group string) error) error {
	each := func(group string) error {
		err := f(group)
		if errors.Is(err, fs.ErrNotExist) && !t.exists(group) {
			return nil
		}
		return err
	}

	tops := t.find()
	if t.host.V2 {
		for _, top := range tops {
			if err := each(top); err != nil {
				return err
			}
		}
		return nil
	}

	if err := each(t.root); err != nil {
		return err
	}
	for _, top := range tops {
		for _, uid := range pods {
			for _, group := range groupsOf(top, uid) {
				if err := t.visitTree(group, depthOfPod, each); err != nil {
					return err
				}
			}
		}
	}

	return nil
}

// depthOfPod is how many levels of groups are limited: that of the pod, of its containers, and what OCI
// runtimes and privileged containers make in those.
const depthOfPod = 5

func (t *Throttle) visitTree(group string, depth int, f func(group string) error) error {
	if err := f(group); err != nil || depth == 1 {
		return err
	}
	for _, name := range t.children(group) {
		if err := t.visitTree(path.Join(group, name), depth-1, f); err != nil {
			return err
		}
	}
	return nil
}

func (t *Throttle) exists(group string) bool {
	_, err := os.Stat(t.host.Dir(t.controller, group))
	return err == nil
}

// children returns the names of the groups in a group; of one that has gone none.
func (t *Throttle) children(group string) []string {
	entries, _ := os.ReadDir(t.host.Dir(t.controller, group))
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names
}

// depthOfTops is how deep the groups of all pods may be. kind has them in one of kubelet's.
const depthOfTops = 3

// find returns the groups that have all pods of a node in them: the least deep ones, of which a machine whose
// nodes are containers may have more than one.
func (t *Throttle) find() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	gone := func(top string) bool { return !t.exists(top) }
	if len(t.tops) == 0 || slices.ContainsFunc(t.tops, gone) {
		t.tops = t.search()
	}
	return t.tops
}

func (t *Throttle) search() []string {
	level := []string{t.root}
	for range depthOfTops {
		var found, next []string
		for _, group := range level {
			for _, name := range t.children(group) {
				next = append(next, path.Join(group, name))
				if isTop(name) {
					found = append(found, path.Join(group, name))
				}
			}
		}

		if len(found) > 0 {
			return found
		}
		level = next
	}

	return nil
}

// isTop reports whether kubelet gives that name to the group of all pods, beneath whatever --cgroup-root. The
// parts of a slice's name are the slices that it is in.
func isTop(name string) bool {
	slice, isSlice := strings.CutSuffix(name, ".slice")
	return name == "kubepods" || isSlice && (slice == "kubepods" || strings.HasSuffix(slice, "-kubepods"))
}

// groupsOf returns the groups that a pod may have, by its class of service and by who made them (cgroupfs or
// systemd).
func groupsOf(top, uid string) []string {
	name := "pod" + uid
	slice, isSlice := strings.CutSuffix(path.Base(top), ".slice")
	if !isSlice {
		return []string{
			path.Join(top, name),
			path.Join(top, "burstable", name),
			path.Join(top, "besteffort", name),
		}
	}

	name = strings.ReplaceAll(name, "-", "_") + ".slice"
	groups := []string{path.Join(top, slice+"-"+name)}
	for _, class := range []string{"burstable", "besteffort"} {
		of := slice + "-" + class
		groups = append(groups, path.Join(top, of+".slice", of+"-"+name))
	}

	return groups
}
