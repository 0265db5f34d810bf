package machine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup"
)

// hierarchy is a cgroup v1 hierarchy: what names it in a mount call, and the directory that it has below
// /sys/fs/cgroup.
type hierarchy struct{ options, dir string }

// hierarchies are those of the host (none on cgroup v2), and hugetlb, which crun insists on, even where the
// host has not mounted it.
func hierarchies() ([]hierarchy, error) {
	if h, err := cgroup.Open(); err != nil || h.V2 {
		return nil, err
	}

	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}

	// A kernel without the file knows no controller.
	known, _ := os.ReadFile("/proc/cgroups")
	return parseHierarchies(string(own), string(known)), nil
}

// parseHierarchies reads the v1 hierarchies from /proc/self/cgroup, and from /proc/cgroups whether there
// could be one with hugetlb.
func parseHierarchies(own, known string) []hierarchy {
	var out []hierarchy
	for line := range strings.Lines(own) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 || fields[1] == "" {
			// The last line may be that of cgroup v2.
			continue
		}

		if name, named := strings.CutPrefix(fields[1], "name="); named {
			out = append(out, hierarchy{"none," + fields[1], name})
		} else {
			out = append(out, hierarchy{fields[1], fields[1]})
		}
	}

	hasHugetlb := slices.ContainsFunc(out, func(h hierarchy) bool {
		return strings.Contains(h.options, "hugetlb")
	})
	if !hasHugetlb && strings.Contains(known, "\nhugetlb\t") {
		out = append(out, hierarchy{"hugetlb", "hugetlb"})
	}

	return out
}

// mountHierarchies covers /sys/fs/cgroup in this mount namespace.
func mountHierarchies(all []hierarchy) error {
	const root = "/sys/fs/cgroup"
	if len(all) == 0 {
		return unix.Mount("cgroup2", root, "cgroup2", plain, "")
	}
	if err := unix.Mount("cgroup", root, "tmpfs", plain, "mode=755"); err != nil {
		return err
	}

	for _, h := range all {
		dir := filepath.Join(root, h.dir)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("cgroup", dir, "cgroup", plain, h.options); err != nil {
			return fmt.Errorf("mount cgroup hierarchy %s: %w", h.options, err)
		}
	}

	return nil
}

// enterCgroup makes the machine's cgroup, limited to memory bytes unless that is 0, goes into it and makes it
// the root of a new cgroup namespace.
func enterCgroup(group string, memory int64) ([]hierarchy, error) {
	all, err := hierarchies()
	if err != nil {
		return nil, err
	}

	// On v1, also in hierarchies that the host has not mounted.
	if len(all) > 0 {
		if err := mountHierarchies(all); err != nil {
			return nil, err
		}
	}

	host, err := cgroup.Open()
	if err != nil {
		return nil, err
	}
	if err := host.Create(group); err != nil {
		return nil, err
	}
	if err := host.Apply(group, cgroup.Limits{Memory: memory}); err != nil {
		return nil, err
	}
	if err := host.Add(group, os.Getpid()); err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
		return nil, fmt.Errorf("new cgroup namespace: %w", err)
	}
	if host.V2 {
		return all, leaveToChildren(host, group)
	}

	return all, nil
}

// Children of a machine's group of v2: that of its PID 1, by the name that systemd looks for itself in, and
// that of what enters the machine from outside.
const (
	initGroup    = "init.scope"
	visitorGroup = "visitors"
)

// leaveToChildren goes into a child of the v2 group, which can then hand its controllers down: with a process
// in it, it cannot.
func leaveToChildren(host *cgroup.Host, group string) error {
	child := group + "/" + initGroup
	for _, dir := range []string{child, group + "/" + visitorGroup} {
		if err := os.Mkdir(host.Dir("", dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	if err := host.Add(child, os.Getpid()); err != nil {
		return err
	}
	return host.Create(child)
}

// visit returns the beginning of a command line that goes into the machine's group before it runs the rest.
// On v2, nobody in the machine could move a process that is outside of what its cgroup namespace shows, not
// even systemd into the scope of a container (cgroups(7), nsdelegate). On v1 there is no such beginning.
func visit(group string) ([]string, error) {
	host, err := cgroup.Open()
	if err != nil || !host.V2 {
		return nil, err
	}

	procs := filepath.Join(host.Dir("", group), visitorGroup, "cgroup.procs")
	return []string{"sh", "-c", `echo $$ >"$0" && exec "$@"`, procs}, nil
}

// sweepGroup kills what is in the cgroup or below it, and removes it from every hierarchy; it runs with
// private mounts.
func sweepGroup(ctx context.Context, group string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}

	all, err := hierarchies()
	if err != nil {
		return err
	}

	if len(all) > 0 {
		if err := mountHierarchies(all); err != nil {
			return err
		}
	}

	host, err := cgroup.Open()
	if err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()

	if err := host.Kill(ctx, group); err != nil {
		return err
	}

	return host.Remove(ctx, group)
}
