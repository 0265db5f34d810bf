// Package cgroup makes, limits, reads, kills and removes control groups on cgroup v1 (also hybrid) and v2
// hosts by their files. A group is named by its path from the hierarchy's root
// ("/kubepods/burstable/pod1234"), the same in every v1 hierarchy.
package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// root is where every distribution mounts the hierarchies (systemd's convention).
const root = "/sys/fs/cgroup"

// Host is the cgroup set-up of the machine (or of the mount namespace) that the process runs in.
type Host struct {
	V2          bool
	controllers map[string]string // v1: controller -> mount point of its hierarchy
	hierarchies []string          // v1: distinct mount points, on a hybrid host also that of v2; v2: the one
}

// Open finds the hierarchies. On v1 all controllers that are mounted below /sys/fs/cgroup are used.
func Open() (*Host, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(root, &st); err != nil {
		return nil, fmt.Errorf("cgroup file system %s: %w", root, err)
	}
	if st.Type == unix.CGROUP2_SUPER_MAGIC {
		return &Host{V2: true, hierarchies: []string{root}}, nil
	}

	mountinfo, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}

	h := legacy(string(mountinfo), visible)
	if h.controllers["memory"] == "" || h.controllers["cpu"] == "" {
		return nil, fmt.Errorf("no cgroup v1 memory and cpu controllers are mounted below %s", root)
	}

	return h, nil
}

// legacy finds the hierarchies of a v1 host in the lines of mountinfo (proc(5)).
func legacy(mountinfo string, visible func(point, device string) bool) *Host {
	h := &Host{controllers: map[string]string{}}
	for line := range strings.Lines(mountinfo) {
		before, after, ok := strings.Cut(line, " - ")
		fields, super := strings.Fields(before), strings.Fields(after)
		if !ok || len(fields) < 5 || len(super) < 3 {
			continue
		}

		// A mount deeper down is one of a group, which container engines and kind bind over itself.
		point := fields[4]
		if filepath.Dir(point) != root || !visible(point, fields[2]) {
			continue
		}

		h.addMount(point, super[0], super[2])
	}

	return h
}

// visible reports whether the file system at point is that of the device (MAJOR:MINOR): mountinfo lists
// mounts that a later one covers, too.
func visible(point, device string) bool {
	var st unix.Stat_t
	if unix.Stat(point, &st) != nil {
		return false
	}
	return device == fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev))
}

// addMount keeps a mount if it is a hierarchy that is not known yet.
func (h *Host) addMount(point, kind, options string) {
	known := true
	switch kind {
	case "cgroup":
		for opt := range strings.SplitSeq(options, ",") {
			name, named := strings.CutPrefix(opt, "name=")
			if !named && !isController(opt) || h.controllers[name] != "" {
				continue
			}

			h.controllers[name] = point
			known = false
		}

	case "cgroup2":
		// Hybrid: no controllers, but OCI runtimes make their groups there too, so they must be removed there
		// too.
		known = false
	}

	if !known && !slices.Contains(h.hierarchies, point) {
		h.hierarchies = append(h.hierarchies, point)
	}
}

func isController(opt string) bool {
	switch opt {
	case "cpu", "cpuacct", "cpuset", "memory", "blkio", "devices", "freezer", "pids", "hugetlb", "perf_event",
		"net_cls", "net_prio", "rdma", "misc":
		return true
	}
	return false
}

// Controller reports whether the controller (v1 or v2 name: cpu, memory, pids, hugetlb...) can be used.
func (h *Host) Controller(name string) bool {
	if !h.V2 {
		return h.controllers[name] != ""
	}
	data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers"))
	return err == nil && slices.Contains(strings.Fields(string(data)), name)
}

// Dir is the directory of group in the hierarchy of controller ("" if that is not mounted; v2 has only one
// hierarchy).
func (h *Host) Dir(controller, group string) string {
	if h.V2 {
		return filepath.Join(root, group)
	}
	if p := h.controllers[controller]; p != "" {
		return filepath.Join(p, group)
	}
	return ""
}

// Exists reports whether the group is there in any hierarchy: a Remove that was killed has taken it from some
// of them only.
func (h *Host) Exists(group string) bool {
	return slices.ContainsFunc(h.hierarchies, func(hierarchy string) bool {
		_, err := os.Stat(filepath.Join(hierarchy, group))
		return err == nil
	})
}

// PageSizes are the sizes of huge pages that the kernel has, by the names that its files have ("2MB", "1GB").
func PageSizes() ([]string, error) {
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return nil, err
	}

	var out []string
	for _, d := range dirs {
		text := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(d), "hugepages-"), "kB")
		kib, err := strconv.ParseUint(text, 10, 54)
		if err != nil {
			continue
		}

		out = append(out, PageSize(kib<<10))
	}

	return out, nil
}

// PageSize is the kernel's name of a page size in bytes (mem_fmt in its hugetlb controller).
func PageSize(bytes uint64) string {
	switch {
	case bytes >= 1<<30:
		return strconv.FormatUint(bytes>>30, 10) + "GB"
	case bytes >= 1<<20:
		return strconv.FormatUint(bytes>>20, 10) + "MB"
	}
	return strconv.FormatUint(bytes>>10, 10) + "KB"
}

// Children are the names of the groups directly below group in any hierarchy. A group that is not there has
// none.
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

// Create makes the group and its parents in every hierarchy. On v2 the controllers are handed down from
// parent to child; on v1 a new cpuset group takes its parent's cpus and mems, without which no process can
// enter it. Repeating it is harmless.
func (h *Host) Create(group string) error {
	group = filepath.Join("/", group)
	for _, hierarchy := range h.hierarchies {
		dir := hierarchy
		for part := range strings.SplitSeq(strings.Trim(group, "/"), "/") {
			if h.V2 {
				if err := handDown(dir); err != nil {
					return err
				}
			}

			parent := dir
			dir = filepath.Join(dir, part)
			if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("create cgroup %s: %w", dir, err)
			}

			if hierarchy == h.controllers["cpuset"] {
				if err := inheritCpuset(parent, dir); err != nil {
					return err
				}
			}
		}
	}

	return nil
}

// handDown enables for the children of a v2 group all controllers that the group itself has.
func handDown(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}

	for c := range strings.FieldsSeq(string(have)) {
		// One by one: a controller that the kernel refuses (e.g. cpu with realtime tasks) must not cost the
		// others.
		err := write(dir, "cgroup.subtree_control", "+"+c)
		if err != nil && (c == "cpu" || c == "memory" || c == "pids") {
			return fmt.Errorf("enable controller %s: %w", c, err)
		}
	}

	return nil
}

func inheritCpuset(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(own))) > 0 {
			continue
		}

		theirs, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := write(dir, file, strings.TrimSpace(string(theirs))); err != nil {
			return err
		}
	}

	return nil
}

// Procs lists the processes in the group and below it.
func (h *Host) Procs(group string) ([]int, error) {
	seen := map[int]bool{}
	for _, hierarchy := range h.hierarchies {
		err := filepath.WalkDir(filepath.Join(
			hierarchy,
			group,
		), func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.IsDir() {
				return err
			}

			data, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) ||
					errors.Is(err, unix.EOPNOTSUPP) {
					return nil
				}

				return err
			}

			for f := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
					seen[pid] = true
				}
			}

			return nil
		})
		if err != nil {
			return nil, err
		}
	}

	pids := make([]int, 0, len(seen))
	for pid := range seen {
		pids = append(pids, pid)
	}

	slices.Sort(pids)
	return pids, nil
}

// Add moves a process into the group in every hierarchy.
func (h *Host) Add(group string, pid int) error {
	for _, hierarchy := range h.hierarchies {
		if err := write(filepath.Join(hierarchy, group), "cgroup.procs", strconv.Itoa(pid)); err != nil {
			return err
		}
	}
	return nil
}

// Kill sends SIGKILL to every process in the group and below until none is left or ctx ends. On v2 the kernel
// does it in one step.
func (h *Host) Kill(ctx context.Context, group string) error {
	if h.V2 {
		err := write(filepath.Join(root, group), "cgroup.kill", "1")
		if errors.Is(err, fs.ErrNotExist) && !h.Exists(group) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}

	return retry(ctx, func() (bool, error) {
		pids, err := h.Procs(group)
		if err != nil {
			return false, err
		}

		for _, pid := range pids {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
				return false, fmt.Errorf("kill process %d of cgroup %s: %w", pid, group, err)
			}
		}

		return len(pids) == 0, nil
	})
}

// Remove deletes the group and all groups below it in every hierarchy. It does not kill: with live processes
// it keeps trying until ctx ends (a dying process leaves its group a moment after its exit is reported). What
// is not there is success.
func (h *Host) Remove(ctx context.Context, group string) error {
	if group = filepath.Join("/", group); group == "/" {
		return errors.New("refusing to remove the root cgroup")
	}

	return retry(ctx, func() (bool, error) {
		gone := true
		for _, hierarchy := range h.hierarchies {
			ok, err := removeTree(filepath.Join(hierarchy, group))
			if err != nil {
				return false, err
			}

			gone = gone && ok
		}

		return gone, nil
	})
}

// removeTree reports false when a group is still busy.
func removeTree(dir string) (bool, error) {
	err := unix.Rmdir(dir)
	switch {
	case err == nil, errors.Is(err, unix.ENOENT):
		return true, nil
	case !errors.Is(err, unix.EBUSY) && !errors.Is(err, unix.ENOTEMPTY):
		return false, fmt.Errorf("remove cgroup %s: %w", dir, err)
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		return errors.Is(err, fs.ErrNotExist), nil
	}

	for _, e := range entries {
		if e.IsDir() {
			if ok, err := removeTree(filepath.Join(dir, e.Name())); !ok || err != nil {
				return false, err
			}
		}
	}

	return unix.Rmdir(dir) == nil, nil
}

// retry calls f with growing pauses of 0.5 to 20 ms: the kernel offers no event for an emptied v1 group.
func retry(ctx context.Context, f func() (done bool, err error)) error {
	pause := 500 * time.Microsecond
	for {
		done, err := f()
		if done || err != nil {
			return err
		}

		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroup is still busy: %w", context.Cause(ctx))
		case <-time.After(pause):
		}

		pause = min(2*pause, 20*time.Millisecond)
	}
}

func write(dir, file, value string) error {
	path := filepath.Join(dir, file)
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to %s: %w", value, path, err)
	}
	return nil
}
