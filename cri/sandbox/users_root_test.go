package sandbox_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/testenv"
)

// withUsers starts a node whose pods can have user namespaces, with a network.
func withUsers(t *testing.T) *nodetest.Node {
	testenv.Program(t, "ip", "iproute2")
	testenv.Program(t, "nsenter", "util-linux")
	n := nodetest.New(t)
	if !testenv.LinuxIs(t, 6, 3) {
		t.Skip("needs a kernel that maps the owners of a tmpfs: Linux 6.3")
	}

	n.Network(link)
	n.Pull()
	s, err := n.Pods.Status(t.Context(), &runtimeapi.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range s.RuntimeHandlers {
		if h.Name == "" && !h.Features.UserNamespaces {
			testenv.Skip(t, "no pod can have a user namespace, see the server's log")
		}
	}
	return n
}

// volume makes a directory with a file that only root may read, and a change that mounts it at /data, with
// the files as those of users from first on.
func volume(t *testing.T, n *nodetest.Node, first uint32) (dir string, c func(*runtimeapi.ContainerConfig)) {
	t.Helper()
	dir = fmt.Sprintf("%s/volume-%d", n.Dir, first)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/secret", []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir, func(c *runtimeapi.ContainerConfig) {
		c.Mounts = append(c.Mounts, &runtimeapi.Mount{
			HostPath:      dir,
			ContainerPath: "/data",
			UidMappings:   nodetest.Mappings(first),
			GidMappings:   nodetest.Mappings(first),
		})
	}
}

func TestPodWithUsersOfItsOwnIsRootAmongThemOnly(t *testing.T) {
	n := withUsers(t)
	const first = 1 << 20
	pod := n.Sandbox("mapped", nodetest.OwnUsers(first))
	dir, mounted := volume(t, n, first)
	app := n.Run(pod, "app", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		mounted(c)
		c.Devices = []*runtimeapi.Device{{HostPath: "/dev/zero", ContainerPath: "/dev/own", Permissions: "r"}}
		c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{
			AddCapabilities: []string{"NET_ADMIN", "SYS_ADMIN"},
		}
	})

	for _, c := range []struct{ command, want string }{
		{"id -u", "0\n"},
		{"cat /proc/self/uid_map | tr -s ' '", " 0 1048576 65536\n"},
		{"cat /data/secret", "secret\n"},
		{"stat -c %u /data /bin /etc / /dev/shm", "0\n0\n0\n0\n0\n"},
		{"touch /data/new /new /bin/x /dev/shm/new && echo ok", "ok\n"},
		{"chown 1000:1000 /data/new && stat -c %u /data/new", "1000\n"},
		{"echo nameserver 192.0.2.1 >/etc/resolv.conf && echo ok", "ok\n"},
		{"echo word >/dev/null && head -c 1 /dev/own | wc -c", "1\n"},
		{"hostname another && hostname", "another\n"},
		{"ip link set lo down && ip link set lo up && echo ok", "ok\n"},
		{"mkdir /m && mount -t tmpfs none /m && echo ok", "ok\n"},
		{"ping -c 1 127.0.0.1 >/dev/null && echo ok", "ok\n"},
		{"mknod /x c 1 3 2>/dev/null || echo no device", "no device\n"},
		{"echo 99 >/proc/sys/kernel/pid_max 2>/dev/null || echo no host", "no host\n"},
	} {
		if out, code := n.Exec(app, c.command); out != c.want || code != 0 {
			t.Errorf("%s: %q, %d", c.command, out, code)
		}
	}

	upper := n.Dir + "/lib/rootfs/containers/" + app + "/upper/new"
	for path, want := range map[string]uint32{dir + "/new": 1000, upper: first} {
		var st syscall.Stat_t
		if err := syscall.Stat(path, &st); err != nil || st.Uid != want {
			t.Errorf("%s is of %d on the host, not of %d: %v", path, st.Uid, want, err)
		}
	}

	removeAll(t, n, pod)
}

// The value is written by the host's root, in whose numbers the pod's groups are others.
func TestGroupsThatMayPingAreThoseOfThePod(t *testing.T) {
	n := withUsers(t)
	pod := n.Sandbox("pings", func(c *runtimeapi.PodSandboxConfig) {
		nodetest.OwnUsers(1 << 20)(c)
		c.Linux.Sysctls = map[string]string{"net.ipv4.ping_group_range": "1000 2147483647"}
	})

	app := n.Run(pod, "app", []string{"sleep", "1000"}, nil)
	if out, _ := n.Exec(app, "cat /proc/sys/net/ipv4/ping_group_range"); out != "1000\t65535\n" {
		t.Errorf("its groups that may send pings are %q", out)
	}

	removeAll(t, n, pod)
}

// removeAll removes pods, of which nothing may be left.
func removeAll(t *testing.T, n *nodetest.Node, pods ...nodetest.Pod) {
	t.Helper()
	for _, pod := range pods {
		if err := n.RemovePod(t.Context(), pod.ID); err != nil {
			t.Error(err)
		}
	}
	if left := n.Leftovers(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

func TestPodsWithUsersOfTheirOwnAreStrangers(t *testing.T) {
	n := withUsers(t)
	const first, second = 1 << 20, 1<<20 + 1<<16
	dir, own := volume(t, n, first)
	stranger := n.Sandbox("stranger", nodetest.OwnUsers(second))
	owner := n.Sandbox("owner", nodetest.OwnUsers(first))

	// As the node would leave a directory whose files the first pod's users own.
	if err := errors.Join(os.Chown(dir, first, first), os.Chown(dir+"/secret", first, first)); err != nil {
		t.Fatal(err)
	}

	plain := func(c *runtimeapi.ContainerConfig) {
		own(c)
		c.Mounts[0].UidMappings, c.Mounts[0].GidMappings = nil, nil
	}

	a := n.Run(owner, "app", []string{"sleep", "1000"}, plain)
	b := n.Run(stranger, "app", []string{"sleep", "1000"}, plain)
	if out, _ := n.Exec(a, "cat /data/secret"); out != "secret\n" {
		t.Errorf("the owner reads %q", out)
	}
	if out, code := n.Exec(b, "cat /data/secret"); code == 0 {
		t.Errorf("the stranger reads %q", out)
	}

	// Volumes show as the pod's, or not at all.
	_, theirs := volume(t, n, second)
	config := n.Container(owner, "other", []string{"true"})
	theirs(config)
	if _, err := n.CreateContainer(t.Context(), owner, config); err == nil {
		t.Error("a volume that is mapped to another pod's users is mounted")
	}

	// The other's processes, by the host's root file system of the pod.
	if out, code := n.Exec(b, "ls "+n.Dir+"/run/mapped"); code == 0 {
		t.Errorf("the stranger sees %q", out)
	}
	for _, id := range []string{a, b} {
		info, err := os.Stat(n.Dir + "/run/mapped/" + id)
		if err != nil || info.Mode().Perm() != 0o710 {
			t.Errorf("others pass to the root of %s: %v, %v", id, info, err)
		}
	}

	removeAll(t, n, owner, stranger)
}

func TestPodWithUsersOfItsOwnOutlivesTheServer(t *testing.T) {
	n := withUsers(t)
	pod := n.Sandbox("shared", func(c *runtimeapi.PodSandboxConfig) {
		nodetest.OwnUsers(1 << 20)(c)
		nodetest.SharePID(c)
	})
	_, mounted := volume(t, n, 1<<20)
	command := []string{"sh", "-c", "cat /data/secret; echo first >/dev/stdout; sleep 1000"}
	c := n.Run(pod, "app", command, mounted)
	out, _ := n.Exec(c, "cat /proc/1/comm; tr -s ' ' </proc/1/uid_map")
	if out != "pause\n 0 1048576 65536\n" {
		t.Errorf("process 1: %q", out)
	}

	// Nothing of the host holds the volume for the container.
	if _, err := os.Stat(n.Dir + "/run/mapped/" + c + "/volumes"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mounts of volumes: %v", err)
	}

	n.Kill()
	n.Start()
	if out, _ := n.Exec(c, "cat /etc/hostname >/dev/null; id -u"); out != "0\n" {
		t.Errorf("after the restart: %q", out)
	}

	more := n.Run(pod, "more", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		c.Tty = true
		c.Linux.SecurityContext.ReadonlyRootfs = true
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
	})
	if out, _ := n.Exec(more, "id -u; touch /x 2>/dev/null || echo ro"); out != "1000\nro\n" {
		t.Errorf("another container: %q", out)
	}

	log, err := os.ReadFile(n.Dir + "/logs/app.log")
	if err != nil || !strings.Contains(string(log), "secret") ||
		!strings.Contains(string(log), "first") {
		t.Errorf("log %q, %v", log, err)
	}

	n.Kill()
	n.Start()
	removeAll(t, n, pod)
}

func TestPodsHaveUsersOverRunc(t *testing.T) {
	testenv.Program(t, "runc", "runc")
	n := withUsers(t)
	n.Kill()
	n.Config = "oci_runtime = \"runc\"\n"
	n.Start()
	pod := n.Sandbox("runc", func(c *runtimeapi.PodSandboxConfig) {
		nodetest.OwnUsers(1 << 20)(c)
		nodetest.SharePID(c)
	})

	checkReadOnly(t, n, pod)
	removeAll(t, n, pod)
}

// checkReadOnly runs a container with a volume as a token is: read-only, and not to have programs run from.
func checkReadOnly(t *testing.T, n *nodetest.Node, pod nodetest.Pod) {
	t.Helper()
	dir, mounted := volume(t, n, 1<<20)
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	if err := unix.Mount("token", dir, "tmpfs", flags, ""); err != nil {
		t.Fatal(err)
	}
	defer mount.Unmount(dir)

	if err := os.WriteFile(dir+"/secret", []byte("token\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	c := n.Run(pod, "reader", []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
		mounted(c)
		c.Mounts[0].Readonly = true
		c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{}
	})

	const command = "cat /data/secret; touch /new; tr -s ' ' </proc/self/uid_map; " +
		"touch /data/new 2>/dev/null || echo ro; mount -o remount,bind,rw /data 2>/dev/null || echo stays"
	if out, _ := n.Exec(c, command); out != "token\n 0 1048576 65536\nro\nstays\n" {
		t.Errorf("in it: %q", out)
	}
}

// badUsers are changes of a pod with a user namespace that cannot be made, by a part of the error.
var badUsers = map[string]func(o *namespaceOption, u *userNamespace){
	"0 mappings of users": func(_ *namespaceOption, u *userNamespace) { u.Uids = nil },
	"2 mappings of groups": func(_ *namespaceOption, u *userNamespace) {
		u.Gids = append(u.Gids, &runtimeapi.IDMapping{ContainerId: 1 << 16, HostId: 1 << 24, Length: 1})
	},
	"root, must be mapped": func(_ *namespaceOption, u *userNamespace) { u.Uids[0].ContainerId = 1 },
	"the root outside":     func(_ *namespaceOption, u *userNamespace) { u.Uids[0].HostId = 0 },
	"no IDs are mapped":    func(_ *namespaceOption, u *userNamespace) { u.Gids[0].Length = 0 },
	"not all below":        func(_ *namespaceOption, u *userNamespace) { u.Uids[0].HostId = 1<<32 - 1<<16 },
	"mapped differently":   func(_ *namespaceOption, u *userNamespace) { u.Gids[0].Length = 9 },
	"mode CONTAINER": func(_ *namespaceOption, u *userNamespace) {
		u.Mode = runtimeapi.NamespaceMode_CONTAINER
	},
	"the node's has no mappings": func(_ *namespaceOption, u *userNamespace) {
		u.Mode = runtimeapi.NamespaceMode_NODE
	},
	"the host's network": func(o *namespaceOption, _ *userNamespace) {
		o.Network = runtimeapi.NamespaceMode_NODE
	},
	"the host's IPC": func(o *namespaceOption, _ *userNamespace) { o.Ipc = runtimeapi.NamespaceMode_NODE },
	"the host's PID": func(o *namespaceOption, _ *userNamespace) { o.Pid = runtimeapi.NamespaceMode_NODE },
}

type (
	namespaceOption = runtimeapi.NamespaceOption
	userNamespace   = runtimeapi.UserNamespace
)

func TestUserNamespacesThatCannotBeMadeAreRefused(t *testing.T) {
	n := withUsers(t)
	for want, change := range badUsers {
		config := n.Sandbox("model", nil).Config
		nodetest.OwnUsers(1 << 20)(config)
		config.Metadata.Name = "refused"
		options := config.Linux.SecurityContext.NamespaceOptions
		change(options, options.UsernsOptions)

		_, err := n.Pods.RunPodSandbox(t.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
		if status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "test/refused/") {
			t.Errorf("%s: %v", want, err)
		}
	}
}
