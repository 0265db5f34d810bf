package leaks

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

// Pod that may be on a node.
type Pod struct {
	UID         string
	HostNetwork bool
}

// View is a node as the host sees it.
type View struct {
	Pid   int    // of its PID 1
	Group string // its cgroup
	Keep  string // the host's directory of what survives its reboots; empty: it has no volumes

	// Daemons are programs that belong there without any pod, by the base name of their command: kubelet,
	// trivet-monitor, ...
	Daemons []string
	Live    []Pod    // pods of the API server's that are bound to it
	Volumes []string // of the volumes that the API server knows: handles, names of hostPaths
	OldLogs bool     // log directories of old pods may be there: a kubelet removes them once a minute

	// UnitStates returns the states of units, which say how one was left, by name. May be nil.
	UnitStates func(names []string) map[string]string
}

// Node lists what is on the node for pods that are not there any more. What carries a pod's UID is recognized
// by it; of the rest (addresses, veths, pinned network namespaces) there may be as many as there are pods
// with a network of their own.
func Node(v View) ([]Leak, error) {
	var out []Leak
	for _, look := range []func(View) ([]Leak, error){
		nodeProcesses,
		nodeMounts,
		nodeGroups,
		nodeUnits,
		nodeLinks,
		nodeAddresses,
		nodeFiles,
		nodeRecords,
		nodeVolumes,
		nodeElements,
		nodeLoops,
	} {
		found, err := look(v)
		if err != nil {
			return nil, err
		}

		out = append(out, found...)
	}

	return out, nil
}

func (v View) root(path string) string {
	return filepath.Join(fmt.Sprintf("/proc/%d/root", v.Pid), path)
}

func (v View) networks() int {
	n := 0
	for _, p := range v.Live {
		if !p.HostNetwork {
			n++
		}
	}
	return n
}

const podsDir = "/var/lib/kubelet/pods"

var podUID = regexp.MustCompile(`[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}`)

// foreign is the UID in text (also with underscores, as systemd's slices have it) that belongs to no live
// pod.
func (v View) foreign(text string) string {
	for _, uid := range podUID.FindAllString(text, -1) {
		uid = strings.ReplaceAll(uid, "_", "-")
		if !v.lives(uid) {
			return uid
		}
	}
	return ""
}

func (v View) lives(uid string) bool {
	return slices.ContainsFunc(v.Live, func(p Pod) bool { return p.UID == uid })
}

// nodeProcesses lists processes of pods that are gone.
func nodeProcesses(v View) ([]Leak, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}

	own, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", v.Pid))
	if err != nil {
		return nil, err
	}

	return v.leftProcesses(all, own), nil
}

// leftProcesses are those of all that are on the node and must not be. With live pods, only the cgroups say
// whose a process is; without, there are daemons in the node's own PID namespace and nothing else.
func (v View) leftProcesses(all []process, ownPIDs string) []Leak {
	var out []Leak
	for _, p := range all {
		if p.pid == v.Pid || !p.inGroup(v.Group) {
			continue
		}

		name, _, _ := strings.Cut(p.command, " ")
		isDaemon := slices.Contains(v.Daemons, filepath.Base(name))
		switch {
		case v.foreign(strings.Join(p.groups, " ")) != "":
			out = append(out, Leak{"process", p.String()})
		case len(v.Live) == 0 && !isDaemon:
			out = append(out, Leak{"process", p.String()})
		case len(v.Live) == 0 && p.pidNS != ownPIDs:
			out = append(out, Leak{"process", p.String() + " (in a PID namespace of its own)"})
		}
	}

	return out
}

// nodeMounts lists mounts for pods that are gone.
func nodeMounts(v View) ([]Leak, error) {
	all, err := mountinfo.Of(v.Pid)
	if err != nil {
		return nil, err
	}
	return v.leftMounts(all), nil
}

// leftMounts are those of all that must not be on the node. A pinned network namespace does not say whose it
// is: there may be one for each pod with a network of its own. Root file systems and other pinned namespaces
// are counted only when no pod is left.
func (v View) leftMounts(all []mountinfo.Mount) []Leak {
	var out, networks, others []Leak
	for _, m := range all {
		l := Leak{"mount", fmt.Sprintf("%s (%s)", m.Point, m.FSType)}
		switch {
		case within(m.Point, podsDir) && v.foreign(podUID.FindString(m.Point)) != "":
			// The first UID is the pod's, a second one its claim's.
			out = append(out, l)
		case m.FSType == "nsfs" && strings.HasPrefix(m.Root, "net:"):
			networks = append(networks, l)
		case m.FSType == "nsfs", m.FSType == "overlay" && !isMachines(m.Point):
			others = append(others, l)
		case within(m.Point, csiStaging) && len(v.Live) == 0:
			out = append(out, l)
		}
	}

	if len(networks) > v.networks() {
		out = append(out, networks...)
	}
	if len(v.Live) == 0 {
		out = append(out, others...)
	}

	return out
}

// csiStaging is where kubelets stage volumes.
const csiStaging = "/var/lib/kubelet/plugins/kubernetes.io/csi"

// covered are the directories of which a machine has overlays of its own.
var covered = []string{"/etc", "/opt", "/var", "/usr/local/bin"}

// isMachines reports whether an overlay is one of the machine's own.
func isMachines(point string) bool {
	return slices.ContainsFunc(covered, func(dir string) bool { return within(point, dir) })
}

// nodeGroups lists cgroups of pods that are gone.
func nodeGroups(v View) ([]Leak, error) {
	hierarchies, err := hierarchies()
	if err != nil {
		return nil, err
	}

	var out []Leak
	for _, h := range hierarchies {
		err := filepath.WalkDir(filepath.Join(h, v.Group), func(path string, e os.DirEntry, err error) error {
			if err != nil || !e.IsDir() {
				// It has gone meanwhile.
				return nil
			}

			if v.foreign(e.Name()) != "" {
				out = append(out, Leak{"cgroup", path})
				return filepath.SkipDir
			}

			return nil
		})
		if err != nil {
			return nil, err
		}
	}

	return out, nil
}

// nodeLinks lists the veths of pods when there are more than pods that have one.
func nodeLinks(v View) ([]Leak, error) {
	ns, err := netns.GetFromPid(v.Pid)
	if err != nil {
		return nil, fmt.Errorf("network namespace of process %d: %w", v.Pid, err)
	}
	defer ns.Close()

	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return nil, err
	}
	defer h.Close()

	links, err := h.LinkList()
	if err != nil {
		return nil, err
	}

	var veths []Leak
	for _, l := range links {
		if l.Type() == "veth" && l.Attrs().Name != "eth0" {
			veths = append(veths, Leak{"veth", l.Attrs().Name})
		}
	}

	if len(veths) <= v.networks() {
		return nil, nil
	}

	return veths, nil
}

// nodeAddresses lists host-local's reservations when there are more than pods that have an address.
func nodeAddresses(v View) ([]Leak, error) {
	files, err := filepath.Glob(v.root("/var/lib/cni/networks/*/*"))
	if err != nil {
		return nil, err
	}
	return v.leftAddresses(files), nil
}

// leftAddresses are those that must not be there of reservations, one file each, named by the address. A pod
// may have one of each family.
func (v View) leftAddresses(files []string) []Leak {
	var v4, v6 []Leak
	for _, f := range files {
		name := filepath.Base(f)
		addr, err := netip.ParseAddr(name)
		switch {
		case err != nil:
			// A file beside them: lock, last_reserved_ip.0.
		case addr.Is4():
			v4 = append(v4, Leak{"address", name})
		default:
			v6 = append(v6, Leak{"address", name})
		}
	}

	var out []Leak
	for _, family := range [][]Leak{v4, v6} {
		if len(family) > v.networks() {
			out = append(out, family...)
		}
	}

	return out
}

// nodeFiles lists directories that are named by the UID of a pod that is gone, libcni's cached results, and
// trivet-cni's index of reservations by sandbox.
func nodeFiles(v View) ([]Leak, error) {
	dirs, err := nodeDirectories(v)
	if err != nil {
		return nil, err
	}
	cached, err := nodeResults(v)
	return append(dirs, cached...), err
}

func nodeDirectories(v View) ([]Leak, error) {
	dirs := []string{podsDir}
	if !v.OldLogs {
		dirs = append(dirs, "/var/log/pods")
	}

	var out []Leak
	for _, dir := range dirs {
		names, err := entries(v.root(dir))
		if err != nil {
			return nil, err
		}

		for _, n := range names {
			if v.foreign(n) != "" {
				out = append(out, Leak{"directory", filepath.Join(dir, n)})
			}
		}
	}

	return out, nil
}

// nodeResults lists results and reservations when there are more than pods with a network have, two for each:
// its network's and loopback's.
func nodeResults(v View) ([]Leak, error) {
	dirs := []string{"/var/lib/cni/results", "/var/lib/cni/cache/results"}
	reserved, err := filepath.Glob(v.root("/var/lib/cni/networks/*/.by-id"))
	if err != nil {
		return nil, err
	}

	for _, dir := range reserved {
		dirs = append(dirs, strings.TrimPrefix(dir, v.root("/")))
	}

	var out []Leak
	for _, dir := range dirs {
		names, err := entries(v.root(dir))
		if err != nil {
			return nil, err
		}
		if len(names) <= 2*v.networks() {
			continue
		}

		for _, n := range names {
			out = append(out, Leak{"directory", filepath.Join(dir, n)})
		}
	}

	return out, nil
}
