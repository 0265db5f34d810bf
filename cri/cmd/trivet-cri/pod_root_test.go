package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	cranereg "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// node is a trivet-cri with its monitor, in directories of its own.
type node struct {
	tb     testing.TB
	dir    string
	image  string
	config string // cri.toml
	cmd    *exec.Cmd
	conns  []io.Closer
	pods   runtimeapi.RuntimeServiceClient
	images runtimeapi.ImageServiceClient
}

func newNode(tb testing.TB) *node {
	testenv.Root(tb)
	n := &node{tb: tb, dir: testenv.ShortDir(tb)}
	testenv.Program(tb, "crun", "crun")
	if err := os.Mkdir(n.dir+"/bin", 0o755); err != nil {
		tb.Fatal(err)
	}

	// by paths of their own this node's processes are told from another's
	for _, p := range []string{"trivet-cri", "trivet-monitor"} {
		if err := os.Link(built+"/"+p, n.dir+"/bin/"+p); err != nil {
			tb.Fatal(err)
		}
	}

	n.image = pushBusybox(tb)
	n.start()
	tb.Cleanup(n.end)
	return n
}

// program is trivet-cri with the node's flags and further ones.
func (n *node) program(more ...string) *exec.Cmd {
	return exec.Command(n.dir+"/bin/trivet-cri", append([]string{
		"--socket=" + n.dir + "/cri.sock",
		"--state-dir=" + n.dir + "/run",
		"--root-dir=" + n.dir + "/lib",
		"--monitor-socket=" + n.dir + "/m.sock",
		"--cni-conf-dir=" + n.dir + "/net.d",
		"--cni-cache-dir=" + n.dir + "/cni",
		"--cni-bin-dir=" + n.dir + "/plugins",
		"--certs-dir=" + n.dir + "/certs",
		"--config=" + n.dir + "/cri.toml",
	}, more...)...)
}

func (n *node) start() {
	n.cmd = n.program()
	if err := os.WriteFile(n.dir+"/cri.toml", []byte(n.config), 0o644); err != nil {
		n.tb.Fatal(err)
	}

	n.cmd.Stdout, n.cmd.Stderr = n.tb.Output(), n.tb.Output()
	if err := n.cmd.Start(); err != nil {
		n.tb.Fatal(err)
	}

	conn, err := socket.Dial(n.dir + "/cri.sock")
	if err != nil {
		n.tb.Fatal(err)
	}

	n.conns = append(n.conns, conn)
	n.pods, n.images = runtimeapi.NewRuntimeServiceClient(conn), runtimeapi.NewImageServiceClient(conn)
	eventually(n.tb, func() bool {
		_, err := n.pods.Version(n.tb.Context(), &runtimeapi.VersionRequest{})
		return err == nil
	})
}

func (n *node) kill() {
	n.cmd.Process.Kill()
	n.cmd.Wait()
}

// end removes all pods and checks that no process of the node is left but the monitor, which it ends.
func (n *node) end() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()

	list, err := n.pods.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		n.tb.Error(err)
	}

	for _, p := range list.GetItems() {
		if _, err := n.pods.RemovePodSandbox(ctx, &runtimeapi.RemovePodSandboxRequest{
			PodSandboxId: p.Id,
		}); err != nil {
			n.tb.Error(err)
		}
	}

	for _, c := range n.conns {
		c.Close()
	}

	n.cmd.Process.Signal(syscall.SIGTERM)
	n.cmd.Wait()
	n.endMonitor()
	groups, err := cgroup.Open()
	if err != nil {
		n.tb.Fatal(err)
	}
	if err := groups.Remove(ctx, "/trivet-cri-test-"+filepath.Base(n.dir)); err != nil {
		n.tb.Errorf("processes are left: %v", err)
	}
}

func (n *node) endMonitor() {
	for _, pid := range n.monitors() {
		syscall.Kill(pid, syscall.SIGTERM)
		eventually(n.tb, func() bool {
			line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
			return err != nil || len(line) == 0
		})
	}
}

// monitors are the processes of the node's trivet-monitor.
func (n *node) monitors() (pids []int) {
	procs, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range procs {
		line, _ := os.ReadFile(p)
		if pid, err := strconv.Atoi(strings.Split(p, "/")[2]); err == nil &&
			bytes.HasPrefix(line, []byte(n.dir+"/bin/trivet-monitor")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

func eventually(tb testing.TB, f func() bool) {
	tb.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if f() {
			return
		}
	}
	tb.Fatal("did not happen within 20 s")
}

// pushBusybox serves an image of the host's busybox on loopback.
func pushBusybox(tb testing.TB) string { return pushImage(tb, nil) }

// pushImage serves one whose files and configuration were changed before.
func pushImage(tb testing.TB, change func(root string, config *v1.Config)) string {
	root := tb.TempDir()
	testenv.BusyboxRoot(tb, root)
	for name, text := range map[string]string{
		"passwd": "root:x:0:0::/root:/bin/sh\nweb:x:1002:1003::/home/web:/bin/sh\n",
		"group":  "root:x:0:\nextra:x:5000:web\n",
	} {
		if err := os.WriteFile(filepath.Join(root, "etc", name), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}

	config := v1.Config{Env: []string{"FROM_IMAGE=yes"}}
	if change != nil {
		change(root, &config)
	}

	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(root)); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}

	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		tb.Fatal(err)
	}

	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		tb.Fatal(err)
	}
	if img, err = mutate.ConfigFile(img, configured(tb, img, config)); err != nil {
		tb.Fatal(err)
	}

	server := httptest.NewServer(cranereg.New(cranereg.Logger(log.New(io.Discard, "", 0))))
	tb.Cleanup(server.Close)
	ref, err := name.ParseReference(strings.TrimPrefix(server.URL, "http://") + "/busybox:1")
	if err != nil {
		tb.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		tb.Fatal(err)
	}

	return ref.String()
}

func configured(tb testing.TB, img v1.Image, config v1.Config) *v1.ConfigFile {
	cf, err := img.ConfigFile()
	if err != nil {
		tb.Fatal(err)
	}
	cf = cf.DeepCopy()
	cf.OS, cf.Architecture = "linux", "amd64"
	cf.Config = config
	return cf
}

func (n *node) sandbox(
	name string,
	change func(*runtimeapi.PodSandboxConfig),
) (string, *runtimeapi.PodSandboxConfig) {
	n.tb.Helper()
	config := &runtimeapi.PodSandboxConfig{Metadata: &runtimeapi.PodSandboxMetadata{
		Name:      name,
		Namespace: "test",
		Uid:       "uid-" + name,
	}, LogDirectory: n.dir + "/logs",
		Linux: &runtimeapi.LinuxPodSandboxConfig{CgroupParent: "/trivet-cri-test-" + filepath.Base(n.dir), SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &runtimeapi.NamespaceOption{
				Network: runtimeapi.NamespaceMode_NODE,
				Pid:     runtimeapi.NamespaceMode_CONTAINER,
			}}}}
	if change != nil {
		change(config)
	}

	resp, err := n.pods.RunPodSandbox(n.tb.Context(), &runtimeapi.RunPodSandboxRequest{Config: config})
	if err != nil {
		n.tb.Fatal(err)
	}

	return resp.PodSandboxId, config
}

// create makes a container that waits for its start.
func (n *node) create(
	pod string,
	box *runtimeapi.PodSandboxConfig,
	name string,
	command []string,
	change func(*runtimeapi.ContainerConfig),
) string {
	n.tb.Helper()
	config := &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: n.image},
		Command:  command,
		LogPath:  name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{
			MemoryLimitInBytes: 64 << 20,
		}, SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
			NamespaceOptions: box.Linux.SecurityContext.NamespaceOptions, Seccomp: &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}}},
	}
	if change != nil {
		change(config)
	}

	created, err := n.pods.CreateContainer(
		n.tb.Context(),
		&runtimeapi.CreateContainerRequest{PodSandboxId: pod, Config: config, SandboxConfig: box},
	)
	if err != nil {
		n.tb.Fatal(err)
	}

	return created.ContainerId
}

func (n *node) run(
	pod string,
	box *runtimeapi.PodSandboxConfig,
	name string,
	command []string,
	change func(*runtimeapi.ContainerConfig),
) string {
	n.tb.Helper()
	id := n.create(pod, box, name, command, change)
	if _, err := n.pods.StartContainer(n.tb.Context(), &runtimeapi.StartContainerRequest{
		ContainerId: id,
	}); err != nil {
		n.tb.Fatal(err)
	}
	return id
}

func (n *node) startContainer(id string) error {
	_, err := n.pods.StartContainer(n.tb.Context(), &runtimeapi.StartContainerRequest{ContainerId: id})
	return err
}

func (n *node) stopContainer(id string, timeout int64) error {
	request := &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: timeout}
	_, err := n.pods.StopContainer(n.tb.Context(), request)
	return err
}

func (n *node) removeContainer(id string) error {
	_, err := n.pods.RemoveContainer(n.tb.Context(), &runtimeapi.RemoveContainerRequest{ContainerId: id})
	return err
}

func (n *node) pull() {
	n.tb.Helper()
	if _, err := n.images.PullImage(n.tb.Context(), &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: n.image},
	}); err != nil {
		n.tb.Fatal(err)
	}
}

func (n *node) status(id string) *runtimeapi.ContainerStatus {
	n.tb.Helper()
	resp, err := n.pods.ContainerStatus(n.tb.Context(), &runtimeapi.ContainerStatusRequest{ContainerId: id})
	if err != nil {
		n.tb.Fatal(err)
	}
	return resp.Status
}
