package podcgroup

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/systemd"
)

// naming is how a cgroup driver names groups.
type naming interface {
	// group returns the path of the group with these names, from the root of the hierarchies down.
	group(names ...string) string
	// parent returns the group as CRI's cgroup_parent names it.
	parent(group string) string
	// uid returns the UID of the pod whose group is that directory in a tier. It returns false for others.
	uid(dir string, tier []string) (types.UID, bool)
}

// tiers are where groups of pods can be.
var tiers = []v1.PodQOSClass{v1.PodQOSGuaranteed, v1.PodQOSBurstable, v1.PodQOSBestEffort}

// tier returns the names from the root to the tier of a quality of service. Guaranteed pods are directly in
// kubepods.
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

// pathNames is the naming of the driver cgroupfs: plain directories below a root.
type pathNames struct{ root string }

func newPaths(root string) pathNames { return pathNames{path.Clean("/" + root)} }

func (p pathNames) group(names ...string) string {
	return path.Join(append([]string{p.root}, names...)...)
}

func (p pathNames) parent(group string) string { return group }

func (p pathNames) uid(dir string, _ []string) (types.UID, bool) {
	uid, ok := strings.CutPrefix(dir, "pod")
	return types.UID(uid), ok && uid != ""
}

// sliceNames is the naming of the driver systemd: slices, whose names hold those of all that they are in.
type sliceNames struct{ prefix string }

// newSlices takes the root as kubelet's cgroupRoot has it, a path of plain names (/kubelet), or as systemd
// shows it (/kubelet.slice).
func newSlices(root string) (sliceNames, error) {
	root = path.Clean("/" + root)
	if root == "/" {
		return sliceNames{}, nil
	}

	if last := path.Base(root); strings.HasSuffix(last, systemd.SliceSuffix) {
		at, err := systemd.SlicePath(last)
		if err != nil {
			return sliceNames{}, err
		}
		if at != root && root != "/"+last {
			return sliceNames{}, fmt.Errorf("slice %s is at %s, not at %s", last, at, root)
		}

		return sliceNames{prefix: strings.TrimSuffix(last, systemd.SliceSuffix) + "-"}, nil
	}

	var parts []string
	for name := range strings.SplitSeq(root[1:], "/") {
		parts = append(parts, escape(name))
	}

	prefix := strings.Join(parts, "-") + "-"

	if _, err := systemd.SlicePath(prefix + "kubepods" + systemd.SliceSuffix); err != nil {
		return sliceNames{}, err
	}

	return sliceNames{prefix}, nil
}

// escape makes a name a part of a slice's name, in which a dash begins another slice.
func escape(name string) string { return strings.ReplaceAll(name, "-", "_") }

func (s sliceNames) group(names ...string) string {
	group, prefix := "/", ""
	if s.prefix != "" {
		for part := range strings.SplitSeq(strings.TrimSuffix(s.prefix, "-"), "-") {
			group = path.Join(group, prefix+part+systemd.SliceSuffix)
			prefix += part + "-"
		}
	}

	for _, name := range names {
		group = path.Join(group, prefix+escape(name)+systemd.SliceSuffix)
		prefix += escape(name) + "-"
	}

	return group
}

func (s sliceNames) parent(group string) string { return path.Base(group) }

// escapedUID is a UID as the API server gives them, after escape.
var escapedUID = regexp.MustCompile(`^[0-9a-f]{8}(_[0-9a-f]{4}){3}_[0-9a-f]{12}$`)

// uid refuses names that do not say for sure what was escaped in them: a wrong UID would be that of no pod,
// and the group would be removed.
func (s sliceNames) uid(dir string, tier []string) (types.UID, bool) {
	name, isSlice := strings.CutSuffix(dir, systemd.SliceSuffix)
	inTier := strings.TrimSuffix(path.Base(s.group(tier...)), systemd.SliceSuffix) + "-pod"
	uid, ok := strings.CutPrefix(name, inTier)
	switch {
	case !isSlice || !ok || uid == "" || strings.Contains(uid, "-"):
		return "", false
	case escapedUID.MatchString(uid):
		return types.UID(strings.ReplaceAll(uid, "_", "-")), true
	}
	return types.UID(uid), !strings.Contains(uid, "_")
}
