// Package cgroup makes, limits, reads, kills and removes control groups by their files, on hosts with cgroup
// v1, v2, or both (hybrid). A group is named by its path from the root of the hierarchies
// ("/kubepods/burstable/pod1234"), which is the same in each of them.
//
// https://docs.kernel.org/admin-guide/cgroup-v1/ and https://docs.kernel.org/admin-guide/cgroup-v2.html
package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// root is where every distribution mounts the hierarchies (systemd's convention).
const root = "/sys/fs/cgroup"

// Host is how control groups are mounted on the machine, or in the mount namespace, that the process runs in.
type Host struct {
	V2 bool

	// controllers are the mount points of v1 hierarchies, by controller.
	controllers map[string]string
	// hierarchies are all mount points: on v2 one, on v1 each once, that of v2 on a hybrid host included.
	hierarchies []string

	// pageSizes are the kernel's names of the sizes of huge pages that readers count.
	pageSizes []string
}

// Open finds the hierarchies. On v1 they are those that are mounted directly below /sys/fs/cgroup.
func Open() (*Host, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("cgroup file system %s: %w", root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return &Host{V2: true, hierarchies: []string{root}, pageSizes: reserved()}, nil
	}

	mounts, err := mountinfo.Self()
	if err != nil {
		return nil, err
	}

	h := legacy(mounts, visible)
	h.pageSizes = reserved()
	if h.controllers["memory"] == "" || h.controllers["cpu"] == "" {
		return nil, fmt.Errorf("no cgroup v1 memory and cpu controllers are mounted below %s", root)
	}

	return h, nil
}

// Controller reports whether a controller (by its v1 or v2 name: cpu, memory, pids, hugetlb) can be used.
func (h *Host) Controller(name string) bool {
	if !h.V2 {
		return h.controllers[name] != ""
	}
	data, err := os.ReadFile(filepath.Join(h.Dir(name, "/"), "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(data)), name)
}

// Dir returns the directory of a group in the hierarchy of a controller, or "" if that is not mounted. On v2
// all controllers have the same.
func (h *Host) Dir(controller, group string) string {
	if h.V2 {
		return filepath.Join(h.hierarchies[0], group)
	}
	if p := h.controllers[controller]; p != "" {
		return filepath.Join(p, group)
	}
	return ""
}

// Exists reports whether a group is there in any hierarchy: a Remove that was killed has taken it from some
// of them only.
func (h *Host) Exists(group string) bool {
	return slices.ContainsFunc(h.hierarchies, func(hierarchy string) bool {
		_, err := os.Stat(filepath.Join(hierarchy, group))
		return err == nil
	})
}

// Children returns the names of the groups directly below a group in any hierarchy, sorted. A group that is
// not there has none.
func (h *Host) Children(group string) ([]string, error) {
	seen := map[string]bool{}
	for _, hierarchy := range h.hierarchies {
		entries, err := os.ReadDir(filepath.Join(hierarchy, group))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("list cgroup %s: %w", group, err)
		}

		for _, e := range entries {
			if e.IsDir() {
				seen[e.Name()] = true
			}
		}
	}

	return slices.Sorted(maps.Keys(seen)), nil
}
