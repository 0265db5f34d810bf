package usage

import (
	"errors"
	"maps"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// finder finds the groups of pods and containers, and remembers them: they do not move.
type finder struct {
	groups Groups
	tree   Tree

	pods map[types.UID]string
	// byID has the group of each container and sandbox; empty for a sandbox that has none.
	byID map[string]string
}

// look finds the groups of pods, and forgets all others. What is found once is not looked for again.
func (f *finder) look(pods []Pod) {
	f.lookForPods(pods)
	known := f.byID
	f.byID = make(map[string]string, len(known))
	for i := range pods {
		p := &pods[i]
		var missing bool
		for _, id := range p.ids() {
			group, ok := known[id]
			if ok {
				f.byID[id] = group
			}

			missing = missing || !ok
		}

		if missing {
			f.lookIn(p)
		}
	}
}

func (p *Pod) ids() []string {
	out := []string{p.SandboxID}
	for _, c := range p.Containers {
		out = append(out, c.ID)
	}
	return out
}

// lookForPods lists the groups of all pods if that of one is not known. Without a list, some have no figures
// until the next pass.
func (f *finder) lookForPods(pods []Pod) {
	for i := range pods {
		if _, ok := f.pods[types.UID(pods[i].UID)]; ok {
			continue
		}
		if all, err := f.tree.Groups(); err == nil {
			f.pods = maps.Clone(all)
		}

		return
	}
}

// lookIn finds the groups in that of a pod. Runtimes name them after the ID: ID, PREFIX-ID.scope.
func (f *finder) lookIn(p *Pod) {
	group := f.pods[types.UID(p.UID)]
	if group == "" {
		return
	}

	entries, err := os.ReadDir(f.groups.Dir("memory", group))
	if err != nil {
		return
	}

	found := map[string]string{}
	for _, e := range entries {
		if e.IsDir() {
			name := strings.TrimSuffix(e.Name(), ".scope")
			found[name[strings.LastIndexByte(name, '-')+1:]] = path.Join(group, e.Name())
		}
	}

	for _, id := range p.ids() {
		if at := found[id]; at != "" || id == p.SandboxID {
			f.byID[id] = at
		}
	}
}

// Daemons finds the groups of the agent itself and of the container runtime, by kubelet's names of system
// containers.
type Daemons struct {
	// Runtime is the path of the runtime's socket. Its process is the one that listens there.
	Runtime string
	// Root holds /proc; empty: this machine's.
	Root string

	mu    sync.Mutex
	known map[string]string
	at    time.Time
}

// daemonAge is how long a group of a daemon is believed: the runtime may be restarted in another one.
const daemonAge = time.Minute

// Groups returns the group of each daemon whose group is known and not the root.
func (d *Daemons) Groups() map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()

	if d.known == nil || time.Since(d.at) > daemonAge {
		d.known = map[string]string{}
		d.at = time.Now()
		d.add(statsapi.SystemContainerKubelet, "self")
		if pid, err := listener(d.Runtime); err == nil {
			d.add(statsapi.SystemContainerRuntime, strconv.Itoa(int(pid)))
		}
	}

	return d.known
}

func (d *Daemons) add(name, pid string) {
	text, err := os.ReadFile(filepath.Join("/", d.Root, "proc", pid, "cgroup"))
	if err != nil {
		return
	}
	if group := groupOf(string(text)); group != "" && group != "/" {
		d.known[name] = group
	}
}

// groupOf parses /proc/PID/cgroup (cgroups(7)): lines HIERARCHY:CONTROLLERS:PATH. With cgroup v1, that of the
// memory controller says where the process is accounted; with v2 there is one line, without controllers.
func groupOf(text string) string {
	unified := ""
	for line := range strings.Lines(text) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3:
		case slices.Contains(strings.Split(fields[1], ","), "memory"):
			return fields[2]
		case fields[0] == "0":
			unified = fields[2]
		}
	}

	return unified
}

// listener returns the ID of the process that listens on a socket.
func listener(socket string) (int32, error) {
	dialer := net.Dialer{Timeout: time.Second}
	conn, err := dialer.Dial("unix", socket)
	if err != nil {
		return 0, err
	}
	defer conn.Close()

	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}

	var peer *unix.Ucred
	var errPeer error
	err = raw.Control(func(fd uintptr) {
		peer, errPeer = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, errPeer); err != nil {
		return 0, err
	}

	return peer.Pid, nil
}
