package cgroup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Create makes a group and its parents in every hierarchy. On v2 the controllers are enabled from parent to
// child; on v1 a new cpuset group takes its parent's cpus and mems, without which no process can enter it. A
// group that is there already is a success.
func (h *Host) Create(group string) error {
	group = strings.Trim(filepath.Join("/", group), "/")
	for _, hierarchy := range h.hierarchies {
		dir := hierarchy
		for name := range strings.SplitSeq(group, "/") {
			if err := h.createIn(dir, name, hierarchy); err != nil {
				return err
			}
			dir = filepath.Join(dir, name)
		}
	}
	return nil
}

// createIn makes one group in a directory of a hierarchy.
func (h *Host) createIn(parent, name, hierarchy string) error {
	if h.V2 {
		if err := enableControllers(parent); err != nil {
			return err
		}
	}

	dir := filepath.Join(parent, name)
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("create cgroup %s: %w", dir, err)
	}
	if hierarchy == h.controllers["cpuset"] {
		return inheritCPUSet(parent, dir)
	}

	return nil
}

// enableControllers enables for the children of a v2 group all controllers that the group itself has.
func enableControllers(dir string) error {
	have, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}

	for c := range strings.FieldsSeq(string(have)) {
		// One by one: a controller that the kernel refuses (cpu with realtime tasks) must not cost the
		// others.
		err := write(dir, "cgroup.subtree_control", "+"+c)
		if err != nil && (c == "cpu" || c == "memory" || c == "pids") {
			return fmt.Errorf("enable controller %s: %w", c, err)
		}
	}

	return nil
}

// inheritCPUSet copies the CPUs and memory nodes of a v1 group to a child that has none.
func inheritCPUSet(parent, dir string) error {
	for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
		own, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		if len(strings.TrimSpace(string(own))) > 0 {
			continue
		}

		parents, err := os.ReadFile(filepath.Join(parent, file))
		if err != nil {
			return err
		}
		if err := write(dir, file, strings.TrimSpace(string(parents))); err != nil {
			return err
		}
	}

	return nil
}

// Procs returns the IDs of the processes in a group and below it, sorted.
func (h *Host) Procs(group string) ([]int, error) {
	var pids []int
	for _, hierarchy := range h.hierarchies {
		below := filepath.Join(hierarchy, group)
		err := filepath.WalkDir(below, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || !d.IsDir() {
				return err
			}

			found, err := procs(path)
			pids = append(pids, found...)
			return err
		})
		if err != nil {
			return nil, err
		}
	}

	slices.Sort(pids)
	return slices.Compact(pids), nil
}

// procs returns the processes of one directory. One that has been removed, or that may have no processes
// (threaded groups of v2), has none.
func procs(dir string) ([]int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP):
		return nil, nil
	case err != nil:
		return nil, err
	}

	var out []int
	for f := range strings.FieldsSeq(string(data)) {
		// 0 is a process of another PID namespace.
		if pid, err := strconv.Atoi(f); err == nil && pid > 0 {
			out = append(out, pid)
		}
	}

	return out, nil
}

// Add moves a process into a group in every hierarchy.
func (h *Host) Add(group string, pid int) error {
	for _, hierarchy := range h.hierarchies {
		err := write(filepath.Join(hierarchy, group), "cgroup.procs", strconv.Itoa(pid))
		if err != nil {
			return err
		}
	}
	return nil
}
