package machine

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/cgroup"
)

// The verbs by which the program that uses this package runs itself; they are not for people. Its main calls
// Verb first.
const (
	bootVerb  = "machine-boot"
	runVerb   = "machine-run"
	sweepVerb = "machine-sweep"
)

// Verb carries out a verb of this package and reports whether args held one.
func Verb(ctx context.Context, args []string) (bool, error) {
	if len(args) != 2 {
		return false, nil
	}

	switch args[0] {
	case bootVerb:
		return true, boot(args[1])
	case runVerb:
		return true, runInit(args[1])
	case sweepVerb:
		return true, sweepGroup(ctx, args[1])
	}

	return false, nil
}

func readConfig(dir string) (c Config, err error) {
	data, err := os.ReadFile(filepath.Join(dir, "config.json"))
	if err != nil {
		return c, err
	}
	return c, json.Unmarshal(data, &c)
}

// plain is how file systems of the kernel's own are mounted.
const plain = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// boot is PID 1 before it is an init: in new namespaces, still with the host's mounts and cgroups. It ends in
// an exec, because a cgroup namespace belongs to a thread and only an exec makes this thread the whole
// process.
func boot(dir string) error {
	runtime.LockOSThread()
	c, err := readConfig(dir)
	if err != nil {
		return err
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Sethostname([]byte(c.Name)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", plain, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}

	hierarchies, err := enterCgroup(c.Group)
	if err != nil {
		return err
	}
	if err := buildRoot(dir, c, hierarchies); err != nil {
		return err
	}
	if c.Init == Systemd {
		return execSystemd(dir, hierarchies)
	}

	// Not by its path: that may lie below a directory that is covered now.
	return unix.Exec("/proc/self/exe", []string{os.Args[0], runVerb, dir}, os.Environ())
}

// hierarchy is a cgroup v1 hierarchy: what names it in a mount call, and the directory that it has below
// /sys/fs/cgroup.
type hierarchy struct{ options, dir string }

// hierarchies of the host (none on cgroup v2), and hugetlb, which crun insists on, even where the host has
// not mounted it.
func hierarchies() ([]hierarchy, error) {
	if h, err := cgroup.Open(); err != nil || h.V2 {
		return nil, err
	}

	f, err := os.Open("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	defer f.Close()

	var out []hierarchy
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.SplitN(s.Text(), ":", 3)
		if len(fields) != 3 || fields[1] == "" {
			continue
		}

		if name, named := strings.CutPrefix(fields[1], "name="); named {
			out = append(out, hierarchy{"none," + fields[1], name})
		} else {
			out = append(out, hierarchy{fields[1], fields[1]})
		}
	}

	hasHugetlb := slices.ContainsFunc(
		out,
		func(h hierarchy) bool { return strings.Contains(h.options, "hugetlb") },
	)
	if known, _ := os.ReadFile("/proc/cgroups"); !hasHugetlb &&
		strings.Contains(string(known), "\nhugetlb\t") {
		out = append(out, hierarchy{"hugetlb", "hugetlb"})
	}

	return out, nil
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

// enterCgroup makes the machine's cgroup, goes into it and makes it the root of a new cgroup namespace.
func enterCgroup(group string) ([]hierarchy, error) {
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

// leaveToChildren goes into a child of the v2 group, which can then hand its controllers down: with a process
// in it, it cannot. The child has the name that systemd looks for itself in.
func leaveToChildren(host *cgroup.Host, group string) error {
	child := group + "/init.scope"
	if err := os.Mkdir(host.Dir("", child), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if err := host.Add(child, os.Getpid()); err != nil {
		return err
	}
	return host.Create(child)
}

// buildRoot arranges the mounts of the machine.
func buildRoot(dir string, c Config, all []hierarchy) error {
	binds, err := openBinds(dir, c)
	if err != nil {
		return err
	}
	defer binds.close()

	scratch := filepath.Join(dir, "scratch")
	if err := unix.Mount("scratch", scratch, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", scratch, err)
	}

	for _, d := range []string{"etc", "opt", "var"} {
		if err := overlay("/"+d, filepath.Join(scratch, d)); err != nil {
			return err
		}
	}

	if err := shadowSysctls(scratch); err != nil {
		return err
	}

	steps := []struct{ kind, target, options string }{
		{
			"tmpfs",
			"/run",
			"mode=755",
		}, {"tmpfs", "/tmp", "mode=1777"}, {"tmpfs", "/dev/shm", "mode=1777"}, {"sysfs", "/sys", ""},
	}

	for _, s := range steps {
		if err := unix.Mount(s.kind, s.target, s.kind, unix.MS_NOSUID|unix.MS_NODEV, s.options); err != nil {
			return fmt.Errorf("mount %s: %w", s.target, err)
		}
	}

	if err := mountHierarchies(all); err != nil {
		return fmt.Errorf("mount cgroups: %w", err)
	}
	if err := os.MkdirAll("/run/lock", 0o1777); err != nil {
		return err
	}
	if err := binds.mount(); err != nil {
		return err
	}
	if err := writeEtc(c); err != nil {
		return err
	}

	// What is not covered is the host's own: nothing in the machine may change it, not even a breakout.
	if err := unix.Mount("", "/", "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("make the host's files read-only: %w", err)
	}

	// Kubelets share mounts with containers.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}

func overlay(target, scratch string) error {
	upper, work := scratch+"/upper", scratch+"/work"
	for _, dir := range []string{upper, work, target} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", target, upper, work)
	if err := unix.Mount("overlay", target, "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay on %s: %w", target, err)
	}
	return nil
}

func writeEtc(c Config) error {
	files := map[string]string{
		"/etc/hosts":       c.Hosts,
		"/etc/hostname":    c.Name + "\n",
		"/etc/resolv.conf": "# no resolver outside the cluster\n",
	}

	for path, text := range files {
		// It may be a symbolic link to a file of the host's /run.
		_ = os.Remove(path)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}

	return nil
}

// bindMounts hold their sources open, because the sources' paths may be hidden by other mounts in between.
type bindMounts []bindMount

type bindMount struct {
	source *os.File
	isDir  bool
	target string
}

func openBinds(dir string, c Config) (bindMounts, error) {
	// The machine's own directory keeps its path: it may lie below /tmp or another directory that is covered.
	sources := map[string]string{dir: dir, filepath.Join(dir, "boot_id"): "/proc/sys/kernel/random/boot_id"}
	for _, k := range c.Keep {
		kept := filepath.Join(dir, "keep", k)
		if err := os.MkdirAll(kept, 0o755); err != nil {
			return nil, err
		}

		sources[kept] = k
	}

	for source, target := range c.Expose {
		sources[source] = target
	}

	var out bindMounts
	for source, target := range sources {
		f, err := os.OpenFile(source, unix.O_PATH, 0)
		if err != nil {
			out.close()
			return nil, err
		}

		st, err := f.Stat()
		if err != nil {
			out.close()
			return nil, err
		}

		out = append(out, bindMount{f, st.IsDir(), target})
	}

	slices.SortFunc(out, func(a, b bindMount) int { return strings.Compare(a.target, b.target) })
	return out, nil
}

func (b bindMounts) close() {
	for _, m := range b {
		m.source.Close()
	}
}

func (b bindMounts) mount() error {
	for _, m := range b {
		if err := makeTarget(m); err != nil {
			return err
		}
		source := fmt.Sprintf("/proc/self/fd/%d", m.source.Fd())
		if err := unix.Mount(source, m.target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("bind %s on %s: %w", m.source.Name(), m.target, err)
		}
	}
	return nil
}

func makeTarget(m bindMount) error {
	if m.isDir {
		return os.MkdirAll(m.target, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(m.target), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(m.target); err == nil {
		return nil
	}
	return os.WriteFile(m.target, nil, 0o644)
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
