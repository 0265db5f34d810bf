package cgroup

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// v1Controllers are the controllers of cgroup v1. They are mount options of their hierarchies, among others.
var v1Controllers = []string{
	"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb",
	"memory", "misc", "net_cls", "net_prio", "perf_event", "pids", "rdma",
}

// legacy finds the hierarchies of a v1 host in its table of mounts.
func legacy(mounts []mountinfo.Mount, visible func(point, device string) bool) *Host {
	h := &Host{controllers: map[string]string{}}
	for _, m := range mounts {
		// A mount deeper down is one of a group, which container engines and kind bind over itself.
		if filepath.Dir(m.Point) == root && visible(m.Point, m.Device) {
			h.addMount(m.Point, m.FSType, m.Options)
		}
	}
	return h
}

// visible reports whether the file system at point is that of the device (MAJOR:MINOR): a table of mounts
// lists those that a later one covers as well.
func visible(point, device string) bool {
	var st unix.Stat_t
	if unix.Stat(point, &st) != nil {
		return false
	}
	return device == fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
}

// addMount keeps a mount if it is a hierarchy that is not known yet.
func (h *Host) addMount(point, kind, options string) {
	found := false
	switch kind {
	case "cgroup":
		for option := range strings.SplitSeq(options, ",") {
			name, named := strings.CutPrefix(option, "name=")
			if !named && !slices.Contains(v1Controllers, option) || h.controllers[name] != "" {
				continue
			}

			h.controllers[name] = point
			found = true
		}

	case "cgroup2":
		// A hybrid host has no controllers here, but OCI runtimes make their groups here too, so that they
		// must be removed here too.
		found = true
	}

	if found && !slices.Contains(h.hierarchies, point) {
		h.hierarchies = append(h.hierarchies, point)
	}
}
