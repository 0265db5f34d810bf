package podcgroup

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/systemd"
)

// Enforce limits a control group of the node's own daemons, which must exist (kubelet's kubeReservedCgroup
// and systemReservedCgroup). With the driver systemd its name is that of a slice, as kubelet takes it:
// system, system.slice or /system.slice.
func (t *Tree) Enforce(ctx context.Context, name string, limits cgroup.Limits) error {
	names := t.reservedNames(name)
	group, err := t.reservedGroup(names)
	if err != nil {
		return fmt.Errorf("cgroup %q: %w", names, err)
	}
	if err := checkReserved(t.cfg.Host, names, group, limits); err != nil {
		return err
	}
	return t.groups.ensure(ctx, group, limits)
}

// reservedNames returns the names from the root to the group, as kubelet's messages have them.
func (t *Tree) reservedNames(name string) []string {
	if t.cfg.Driver != "systemd" {
		return slices.DeleteFunc(strings.Split(name, "/"), func(part string) bool { return part == "" })
	}

	names := strings.Split(strings.TrimSuffix(path.Base(name), systemd.SliceSuffix), "-")
	for i := range names {
		names[i] = strings.ReplaceAll(names[i], "_", "-")
	}

	return names
}

// reservedGroup returns the path of the group from the root of the hierarchies.
func (t *Tree) reservedGroup(names []string) (string, error) {
	if t.cfg.Driver != "systemd" {
		return path.Join(append([]string{"/"}, names...)...), nil
	}

	escaped := make([]string, len(names))
	for i, name := range names {
		escaped[i] = escape(name)
	}

	return systemd.SlicePath(strings.Join(escaped, "-") + systemd.SliceSuffix)
}

// checkReserved returns kubelet's error if the group does not exist, or lacks a controller that is needed.
func checkReserved(host *cgroup.Host, names []string, group string, limits cgroup.Limits) error {
	needed := []string{"cpu"}
	if limits.Memory != 0 {
		needed = append(needed, "memory")
	}
	if limits.PIDs != 0 {
		needed = append(needed, "pids")
	}

	if host.V2 {
		return checkControllers(host, names, group, needed)
	}

	var missing []string
	for _, controller := range needed {
		dir := host.Dir(controller, group)
		if _, err := os.Stat(dir); dir != "" && err != nil {
			missing = append(missing, dir)
		}
	}

	if len(missing) > 0 {
		return fmt.Errorf("cgroup %q has some missing paths: %s", names, strings.Join(missing, ", "))
	}

	return nil
}

// checkControllers does that on cgroup v2.
func checkControllers(host *cgroup.Host, names []string, group string, needed []string) error {
	data, err := os.ReadFile(filepath.Join(host.Dir("", group), "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("could not read controllers for cgroup %q: %w", names, err)
	}

	have := strings.Fields(string(data))
	missing := slices.DeleteFunc(needed, func(controller string) bool {
		return slices.Contains(have, controller) || !host.Controller(controller)
	})
	if len(missing) > 0 {
		return fmt.Errorf("cgroup %q has some missing controllers: %s", names, strings.Join(missing, ", "))
	}

	return nil
}
