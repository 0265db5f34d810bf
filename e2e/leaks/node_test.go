package leaks

import (
	"strings"
	"testing"

	"github.com/trivet-node/trivet/internal/mountinfo"
)

const (
	alive = "6f9b2c1e-0000-4000-8000-000000000001"
	dead  = "6f9b2c1e-0000-4000-8000-000000000002"
)

// found joins what leaks are about.
func found(leaks []Leak) string {
	var all []string
	for _, l := range leaks {
		all = append(all, l.What)
	}
	return strings.Join(all, ", ")
}

func TestProcessesAreJudgedByTheirCgroupsOrAsDaemons(t *testing.T) {
	of := func(pid int, command, group, pidNS string) process {
		return process{
			pid:     pid,
			command: command,
			groups:  []string{group},
			pidNS:   pidNS,
		}
	}

	all := []process{
		of(1, "trivet-cluster", "/machine", "own"),
		of(2, "/bin/trivet-cri --x", "/machine", "own"),
		of(3, "sleep 1", "/machine/kubepods/pod"+alive, "other"),
		of(4, "sleep 2", "/machine/kubepods/pod"+dead, "other"),
		of(5, "sleep 3", "/machine", "own"),
		of(6, "/bin/trivet-monitor", "/machine", "other"),
		of(7, "sleep 4", "/another", "own"),
	}

	view := View{Pid: 1, Group: "/machine", Daemons: []string{"trivet-cri", "trivet-monitor"}}
	view.Live = []Pod{{UID: alive}}
	if got := found(view.leftProcesses(all, "own")); got != "4: sleep 2" {
		t.Errorf("with a live pod: %s", got)
	}

	view.Live = nil
	const want = "3: sleep 1, 4: sleep 2, 5: sleep 3, 6: /bin/trivet-monitor (in a PID namespace of its own)"
	if got := found(view.leftProcesses(all, "own")); got != want {
		t.Errorf("without: %s", got)
	}
}

func TestMountsAreJudgedByTheirPodOrByTheirNumber(t *testing.T) {
	all := []mountinfo.Mount{
		{Point: "/var/lib/kubelet/pods/" + alive + "/volumes/pvc-" + dead, FSType: "btrfs"},
		{Point: "/var/lib/kubelet/pods/" + dead + "/volumes/x", FSType: "tmpfs"},
		{Point: "/run/netns/a", FSType: "nsfs", Root: "net:[1]"},
		{Point: "/run/netns/b", FSType: "nsfs", Root: "net:[2]"},
		{Point: "/run/trivet/ipc", FSType: "nsfs", Root: "ipc:[3]"},
		{Point: "/run/trivet/cri/rootfs", FSType: "overlay"},
		{Point: "/etc", FSType: "overlay"},
		{Point: "/usr/local/bin", FSType: "overlay"},
		{Point: "/var/lib/kubelet/plugins/kubernetes.io/csi/x", FSType: "btrfs"},
		{Point: "/proc", FSType: "proc"},
	}

	gone := "/var/lib/kubelet/pods/" + dead + "/volumes/x (tmpfs)"
	for _, c := range []struct {
		name string
		live []Pod
		want string
	}{
		{"two pods with networks", []Pod{{UID: alive}, {UID: "x"}}, gone},
		{
			"one of them on the host's network",
			[]Pod{{UID: alive}, {UID: "x", HostNetwork: true}},
			gone + ", /run/netns/a (nsfs), /run/netns/b (nsfs)",
		},
		{
			"no pod",
			nil,
			"/var/lib/kubelet/pods/" + alive + "/volumes/pvc-" + dead + " (btrfs), " + gone +
				", /var/lib/kubelet/plugins/kubernetes.io/csi/x (btrfs), /run/netns/a (nsfs), " +
				"/run/netns/b (nsfs), /run/trivet/ipc (nsfs), /run/trivet/cri/rootfs (overlay)",
		},
	} {
		if got := found(View{Live: c.live}.leftMounts(all)); got != c.want {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

func TestEachPodMayHaveAnAddressOfEachFamily(t *testing.T) {
	files := []string{"/n/10.244.0.2", "/n/fd00::2", "/n/lock", "/n/last_reserved_ip.0"}
	if got := found(View{Live: []Pod{{UID: alive}}}.leftAddresses(files)); got != "" {
		t.Errorf("with a pod: %s", got)
	}
	if got := found(View{}.leftAddresses(files)); got != "10.244.0.2, fd00::2" {
		t.Errorf("without: %s", got)
	}

	twice := append(files, "/n/10.244.0.3")
	if got := found(View{Live: []Pod{{UID: alive}}}.leftAddresses(twice)); got != "10.244.0.2, 10.244.0.3" {
		t.Errorf("two of one family for a pod: %s", got)
	}
}
