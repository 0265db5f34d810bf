package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/testenv"
)

func sharedPID(c *runtimeapi.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
}

// exec runs a shell command in a container and returns its output.
func (n *node) exec(id, command string) (out string, code int32) {
	n.tb.Helper()
	resp, err := n.pods.ExecSync(
		n.tb.Context(),
		&runtimeapi.ExecSyncRequest{ContainerId: id, Cmd: []string{"sh", "-c", command}},
	)
	if err != nil {
		n.tb.Fatal(err)
	}
	return string(resp.Stdout), resp.ExitCode
}

// podStatus also tells the process of the init of a shared PID namespace.
func (n *node) podStatus(pod string) (state runtimeapi.PodSandboxState, pause int) {
	n.tb.Helper()
	resp, err := n.pods.PodSandboxStatus(
		n.tb.Context(),
		&runtimeapi.PodSandboxStatusRequest{PodSandboxId: pod, Verbose: true},
	)
	if err != nil {
		n.tb.Fatal(err)
	}

	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(resp.Info["info"]), &info); err != nil {
		n.tb.Fatal(err)
	}

	return resp.Status.State, info.Pid
}

func TestPodWhoseSharedInitEndsIsNotReady(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("init", sharedPID)
	c := n.run(pod, box, "app", []string{"sleep", "1000"}, nil)
	stream, err := n.pods.GetContainerEvents(t.Context(), &runtimeapi.GetEventsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	told := make(chan struct{})
	go func() {
		for e, err := stream.Recv(); err == nil; e, err = stream.Recv() {
			if e.ContainerId == pod &&
				e.ContainerEventType == runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT {
				close(told)
				return
			}
		}
	}()

	if out, _ := n.exec(c, "cat /proc/1/comm"); strings.TrimSpace(out) != "pause" {
		t.Fatalf("process 1 is %q", out)
	}

	if _, err := n.pods.ExecSync(t.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: c,
		Cmd:         []string{"sh", "-c", "kill 1; sleep 1000"},
	}); err != nil {
		// it dies with the namespace
		t.Log(err)
	}

	select {
	case <-told:
	case <-time.After(20 * time.Second):
		t.Fatal("nobody is told that the sandbox has ended")
	}

	if state, _ := n.podStatus(pod); state != runtimeapi.PodSandboxState_SANDBOX_NOTREADY {
		t.Errorf("state %s", state)
	}

	eventually(t, func() bool { return n.status(c).State == runtimeapi.ContainerState_CONTAINER_EXITED })
	_, err = n.pods.CreateContainer(t.Context(), &runtimeapi.CreateContainerRequest{PodSandboxId: pod, SandboxConfig: box, Config: &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "late"}, Image: &runtimeapi.ImageSpec{Image: n.image}}})
	if status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a container in it: %v", err)
	}

	again, box := n.sandbox("init", sharedPID)
	if again == pod {
		t.Fatal("the pod got the same sandbox again")
	}

	_, pause := n.podStatus(again)

	// and now while nobody listens
	n.kill()
	if err := syscall.Kill(pause, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	n.start()
	eventually(t, func() bool {
		state, _ := n.podStatus(again)
		return state == runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	})
}

func TestStartThatWasCutOffBeforeItsRecordIsSeen(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("cut", nil)
	started, waiting := n.create(
		pod,
		box,
		"started",
		[]string{"sleep", "1000"},
		nil,
	), n.create(pod, box, "waiting", []string{"sleep", "1000"}, nil)

	n.kill()
	n.crun("start", started)
	n.start()
	if s := n.status(started); s.State != runtimeapi.ContainerState_CONTAINER_RUNNING ||
		s.StartedAt < s.CreatedAt {
		t.Errorf("state %s, started at %d", s.State, s.StartedAt)
	}

	if s := n.status(waiting); s.State != runtimeapi.ContainerState_CONTAINER_CREATED {
		t.Errorf("state of the one that was not started: %s", s.State)
	}
}

// crun does what a server that was killed meanwhile had begun.
func (n *node) crun(args ...string) {
	n.tb.Helper()
	if out, err := exec.Command(testenv.Program(n.tb, "crun", "crun"), append([]string{
		"--root",
		n.dir + "/run/oci/crun",
	}, args...)...).CombinedOutput(); err != nil {
		n.tb.Fatalf("crun %s: %v: %s", args, err, out)
	}
}

// What cannot be removed stays to be seen, so that its pod's removal tries again, and keeps nothing else from
// working.
func TestHalfMadeContainerThatCannotBeRemovedIsListed(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("half", nil)
	c := n.create(pod, box, "app", []string{"sleep", "1000"}, nil)
	n.kill()
	path := n.dir + "/run/containers/records/" + c + ".json"
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	half := strings.Replace(string(data), `"Made":true`, `"Made":false`, 1)
	stuck, orphan := n.dir+"/run/containers/"+c+"/stuck", n.dir+"/lib/rootfs/containers/orphan/upper"
	err = errors.Join(
		os.WriteFile(path, []byte(half), 0o600),
		os.Mkdir(stuck, 0o700),
		os.MkdirAll(orphan, 0o700),
	)

	for _, dir := range []string{stuck, orphan} {
		err = errors.Join(err, unix.Mount("tmpfs", dir, "tmpfs", 0, ""))
	}

	if err != nil {
		t.Fatal(err)
	}

	n.start()
	if s := n.status(c); s.State != runtimeapi.ContainerState_CONTAINER_EXITED {
		t.Errorf("state %s", s.State)
	}

	list, err := n.pods.ListContainers(t.Context(), &runtimeapi.ListContainersRequest{})
	if err != nil || len(list.Containers) != 1 {
		t.Errorf("listed: %v, %v", list, err)
	}
	if err := errors.Join(unix.Unmount(stuck, 0), unix.Unmount(orphan, 0)); err != nil {
		t.Fatal(err)
	}

	if _, err := n.pods.RemoveContainer(t.Context(), &runtimeapi.RemoveContainerRequest{
		ContainerId: c,
	}); err != nil {
		t.Error(err)
	}
}

func TestFilesOfThePodAreOnDiskAndReadOnlyWithTheRoot(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("files", func(c *runtimeapi.PodSandboxConfig) {
		c.DnsConfig = &runtimeapi.DNSConfig{Servers: []string{"192.0.2.1"}}
	})
	writer := n.run(pod, box, "writer", []string{"sleep", "1000"}, nil)
	reader := n.run(
		pod,
		box,
		"reader",
		[]string{"sleep", "1000"},
		func(c *runtimeapi.ContainerConfig) { c.Linux.SecurityContext.ReadonlyRootfs = true },
	)

	for _, file := range []string{"/etc/resolv.conf", "/etc/hostname"} {
		if _, code := n.exec(reader, "echo read >>"+file); code == 0 {
			t.Errorf("%s can be written in a read-only root", file)
		}
		if _, code := n.exec(writer, "echo written >>"+file); code != 0 {
			t.Errorf("%s cannot be written", file)
		}
	}

	if out, code := n.exec(reader, "echo x >/dev/shm/x && cat /etc/resolv.conf"); code != 0 ||
		out != "nameserver 192.0.2.1\nwritten\n" {
		t.Errorf("resolv.conf: %q, %d", out, code)
	}

	if data, err := os.ReadFile(n.dir + "/lib/sandboxes/" + pod + "/resolv.conf"); err != nil ||
		!strings.HasSuffix(string(data), "written\n") {
		t.Errorf("below the root directory: %q, %v", data, err)
	}

	n.kill()
	if err := os.MkdirAll(n.dir+"/lib/sandboxes/before-the-reboot", 0o700); err != nil {
		t.Fatal(err)
	}

	n.start()
	if _, err := n.pods.RemovePodSandbox(t.Context(), &runtimeapi.RemovePodSandboxRequest{
		PodSandboxId: pod,
	}); err != nil {
		t.Error(err)
	}

	if left, _ := filepath.Glob(n.dir + "/lib/sandboxes/*"); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// link is a CNI plugin that makes an interface and gives no address.
const link = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) nsenter --net="$CNI_NETNS" ip link add "$CNI_IFNAME" type veth peer name peer0 >&2 || exit 1
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}]}' ;;
esac
`

func TestSysctlOfTheInterfaceIsSet(t *testing.T) {
	testenv.Program(t, "ip", "iproute2")
	testenv.Program(t, "nsenter", "util-linux")
	n := newNode(t)
	n.network()
	if err := os.WriteFile(n.dir+"/plugins/leases", []byte(link), 0o755); err != nil {
		t.Fatal(err)
	}

	n.pull()
	pod, box := n.sandbox("sysctl", func(c *runtimeapi.PodSandboxConfig) {
		c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
		c.Linux.Sysctls = map[string]string{
			"net.ipv4.conf.eth0.forwarding":  "1",
			"net/ipv4/conf/peer0/forwarding": "1",
			"kernel.shm_rmid_forced":         "1",
		}
	})

	c := n.run(pod, box, "app", []string{"sleep", "1000"}, nil)
	for _, path := range []string{
		"net/ipv4/conf/eth0/forwarding",
		"net/ipv4/conf/peer0/forwarding",
		"kernel/shm_rmid_forced",
	} {
		if out, _ := n.exec(c, "cat /proc/sys/"+path); out != "1\n" {
			t.Errorf("%s is %q", path, out)
		}
	}
}

// As with other runtimes, nobody needs a capability for what harms nobody in a network namespace of his own.
func TestPodBindsLowPortsAndPingsWithoutCapabilities(t *testing.T) {
	testenv.Program(t, "ip", "iproute2")
	testenv.Program(t, "nsenter", "util-linux")
	n := newNode(t)
	n.network()
	if err := os.WriteFile(n.dir+"/plugins/leases", []byte(link), 0o755); err != nil {
		t.Fatal(err)
	}

	n.pull()
	start := func(name string, sysctls map[string]string) string {
		pod, box := n.sandbox(name, func(c *runtimeapi.PodSandboxConfig) {
			c.Linux.SecurityContext.NamespaceOptions.Network = runtimeapi.NamespaceMode_POD
			c.Linux.Sysctls = sysctls
		})

		return n.run(pod, box, name, []string{"sleep", "1000"}, func(c *runtimeapi.ContainerConfig) {
			c.Linux.SecurityContext.RunAsUser = &runtimeapi.Int64Value{Value: 1000}
			c.Linux.SecurityContext.Capabilities = &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}
		})
	}

	c := start("plain", nil)
	const sysctls = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/ping_group_range"
	if out, _ := n.exec(c, sysctls); out != "0\n0\t2147483647\n" {
		t.Errorf("sysctls %q", out)
	}

	// it waits for a client
	if out, code := n.exec(c, "timeout 1 nc -l -p 80"); code != 143 && code != 124 {
		t.Errorf("port 80: %q, code %d", out, code)
	}

	c = start("own", map[string]string{
		"net.ipv4.ip_unprivileged_port_start": "1000",
		"net.ipv4.ping_group_range":           "5\t6",
	})
	if out, _ := n.exec(c, sysctls); out != "1000\n5\t6\n" {
		t.Errorf("the pod's own: %q", out)
	}

	host, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	pod, box := n.sandbox("host", nil)
	c = n.run(pod, box, "host", []string{"sleep", "1000"}, nil)
	if out, _ := n.exec(c, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start"); out != string(host) {
		t.Errorf("a pod on the host's network has %q, the host %q", out, host)
	}

	name, err := os.Hostname()
	if out, _ := n.exec(c, "echo $HOSTNAME"); err != nil || out != name+"\n" {
		t.Errorf("a pod on the host's network has the name %q, the host %q, %v", out, name, err)
	}
}

// A tree that is deeper than a path can be long must not hide what the others use.
func TestStatsLeaveNobodyOutForAnother(t *testing.T) {
	n := newNode(t)
	n.pull()
	pod, box := n.sandbox("stats", nil)
	deep, other := n.run(
		pod,
		box,
		"deep",
		[]string{"sleep", "1000"},
		nil,
	), n.run(pod, box, "other", []string{"sleep", "1000"}, nil)

	dir, err := os.OpenRoot(n.dir + "/run/rootfs/mounts/" + deep)
	for range 30 {
		if err == nil {
			defer dir.Close()

			name := strings.Repeat("n", 200)
			if err = dir.Mkdir(name, 0o700); err == nil {
				dir, err = dir.OpenRoot(name)
			}
		}
	}

	if err != nil {
		t.Fatal(err)
	}

	stats, err := n.pods.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{})
	if err != nil || len(stats.GetStats()) != 2 {
		t.Errorf("stats: %v, %v", stats, err)
	}

	for _, s := range stats.GetStats() {
		if want := uint64(10); s.Attributes.Id == deep && s.WritableLayer.InodesUsed.Value < want ||
			s.Attributes.Id == other && s.Memory.GetWorkingSetBytes().GetValue() == 0 {
			t.Errorf("stats of %s: %v", s.Attributes.Metadata.Name, s)
		}
	}

	if pods, err := n.pods.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{}); err != nil || len(pods.Stats) != 1 || len(pods.Stats[0].Linux.Containers) != 2 {
		t.Errorf("pod stats: %v, %v", pods, err)
	}
	if _, err := n.images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{}); err != nil {
		t.Error(err)
	}
}
