package leaks

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/e2e/loopdev"
	"github.com/trivet-node/trivet/internal/mountinfo"
)

// Snapshot is the part of the host's own state that a cluster could change by mistake.
type Snapshot struct {
	Links   []string
	Tables  []string // nft tables, "family name"
	Forward string   // net.ipv4.ip_forward
	Paths   []string // of ownPaths, those that exist

	// Loops are loop devices whose file is deleted, "device on file": the file of a cluster that is gone, or
	// of a program that has not ended yet.
	Loops []string
}

// ownPaths are what the four parts and their references keep on a node, and must never make on the host.
var ownPaths = []string{
	"/etc/cni",
	"/etc/trivet",
	"/etc/kubernetes",
	"/opt/cni",
	"/run/trivet",
	"/run/containerd",
	"/run/kubelet",
	"/var/lib/kubelet",
	"/var/lib/trivet",
	"/var/lib/cni",
	"/var/lib/containerd",
	"/var/log/pods",
	"/var/log/containers",
}

// TakeSnapshot looks at the host; keep it from before the cluster came up.
func TakeSnapshot() (Snapshot, error) {
	var s Snapshot
	links, err := netlink.LinkList()
	if err != nil {
		return s, fmt.Errorf("list links: %w", err)
	}

	for _, l := range links {
		s.Links = append(s.Links, l.Attrs().Name)
	}

	s.Tables, err = tables()
	if err != nil {
		return s, err
	}

	forward, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	if err != nil {
		return s, err
	}

	s.Forward = strings.TrimSpace(string(forward))
	for _, p := range ownPaths {
		if _, err := os.Lstat(p); err == nil {
			s.Paths = append(s.Paths, p)
		}
	}

	all, err := loopdev.List()
	for _, d := range all {
		if strings.HasSuffix(d.Backing, "(deleted)") {
			s.Loops = append(s.Loops, d.Path+" on "+d.Backing)
		}
	}

	return s, err
}

func tables() ([]string, error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, err
	}

	list, err := conn.ListTables()
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOPROTOOPT) ||
		errors.Is(err, unix.EPROTONOSUPPORT) {
		// A kernel without nftables.
		return nil, nil
	}

	if err != nil {
		return nil, fmt.Errorf("list nft tables: %w", err)
	}

	var out []string
	for _, t := range list {
		out = append(out, fmt.Sprintf("%d %s", t.Family, t.Name))
	}

	return out, nil
}

// Since compares the host with an earlier snapshot.
func (s Snapshot) Since(before Snapshot) []Leak {
	var out []Leak
	added := func(kind string, now, then []string) {
		for _, x := range now {
			if !slices.Contains(then, x) {
				out = append(out, Leak{kind, x})
			}
		}
	}

	added("link", s.Links, before.Links)
	added("nft table", s.Tables, before.Tables)
	added("directory", s.Paths, before.Paths)
	added("loop device", s.Loops, before.Loops)
	if s.Forward != before.Forward {
		what := fmt.Sprintf("net.ipv4.ip_forward was %s, is %s", before.Forward, s.Forward)
		out = append(out, Leak{"sysctl", what})
	}

	return out
}

// Host lists what is left of a cluster that is down: state is its directory, group the cgroup above its
// machines.
func Host(state, group string) ([]Leak, error) {
	var out []Leak
	for _, look := range []func(state, group string) ([]Leak, error){
		hostProcesses,
		hostMounts,
		hostGroups,
		hostLoops,
	} {
		found, err := look(state, group)
		if err != nil {
			return nil, err
		}

		out = append(out, found...)
	}

	return out, nil
}

func hostProcesses(state, group string) ([]Leak, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}

	own, parent := os.Getpid(), os.Getppid()
	var out []Leak
	for _, p := range all {
		if p.pid == own || p.pid == parent {
			continue
		}
		if p.inGroup(group) || within(p.cwd, filepath.Join(state, "machines")) {
			out = append(out, Leak{"process", p.String()})
		}
	}

	return out, nil
}

// hostMounts looks into every mount namespace that a process holds, not only into the host's.
func hostMounts(state, _ string) ([]Leak, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}

	machines := filepath.Join(state, "machines")
	seen := map[string]bool{}
	var out []Leak
	for _, p := range all {
		if p.mntNS == "" || seen[p.mntNS] {
			continue
		}

		seen[p.mntNS] = true
		lines, err := mountinfo.Of(p.pid)
		if err != nil {
			// It has ended.
			continue
		}

		for _, m := range lines {
			if within(m.Point, machines) || within(m.Root, machines) {
				what := fmt.Sprintf("%s of %s (%s), seen by process %d", m.Point, m.Root, m.FSType, p.pid)
				out = append(out, Leak{"mount", what})
			}
		}
	}

	return out, nil
}

// hierarchies are the directories in which cgroup hierarchies are, or may be, mounted on the host.
func hierarchies() ([]string, error) {
	files, err := filepath.Glob("/sys/fs/cgroup/*/cgroup.procs")
	if err != nil {
		return nil, err
	}

	dirs := []string{"/sys/fs/cgroup"}
	for _, f := range files {
		dirs = append(dirs, filepath.Dir(f))
	}
	return dirs, nil
}

// hostGroups also looks into the hugetlb hierarchy, which machines mount for themselves: through a mount that
// is attached nowhere.
func hostGroups(_, group string) ([]Leak, error) {
	hierarchies, err := hierarchies()
	if err != nil {
		return nil, err
	}

	var out []Leak
	for _, h := range hierarchies {
		path := filepath.Join(h, group)
		if _, err := os.Stat(path); err == nil {
			out = append(out, Leak{"cgroup", path})
		}
	}

	_, err = os.Stat("/sys/fs/cgroup/hugetlb")
	if errors.Is(err, fs.ErrNotExist) && hiddenGroup("hugetlb", group) {
		out = append(out, Leak{"cgroup", "hugetlb (not mounted):" + group})
	}

	return out, nil
}

// hiddenGroup looks for a group of a v1 controller that the host has not mounted.
func hiddenGroup(controller, group string) bool {
	if data, err := os.ReadFile("/proc/cgroups"); err != nil ||
		!strings.Contains(string(data), "\n"+controller+"\t") {
		return false
	}

	var st unix.Statfs_t
	if unix.Statfs("/sys/fs/cgroup", &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC {
		return false
	}

	fsfd, err := unix.Fsopen("cgroup", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return false
	}
	defer unix.Close(fsfd)

	if unix.FsconfigSetFlag(fsfd, controller) != nil || unix.FsconfigCreate(fsfd) != nil {
		return false
	}

	mnt, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(mnt)

	return unix.Faccessat(mnt, strings.TrimPrefix(group, "/"), unix.F_OK, 0) == nil
}

func hostLoops(state, _ string) ([]Leak, error) {
	all, err := loopdev.List()
	var out []Leak
	for _, d := range all {
		if within(d.Backing, state) {
			out = append(out, loopLeak(d))
		}
	}
	return out, err
}

func loopLeak(d loopdev.Device) Leak {
	return Leak{"loop device", d.Path + " on " + d.Backing}
}
