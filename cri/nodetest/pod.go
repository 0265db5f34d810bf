package nodetest

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Pod is a pod sandbox and what it was made from.
type Pod struct {
	ID     string
	Config *runtimeapi.PodSandboxConfig
}

// Sandbox makes a pod on the host's network whose containers have a PID namespace each. change, which may be
// nil, changes that.
func (n *Node) Sandbox(name string, change func(*runtimeapi.PodSandboxConfig)) Pod {
	n.tb.Helper()
	return n.SandboxOf("", name, change)
}

// SandboxOf makes a pod of a runtime handler.
func (n *Node) SandboxOf(handler, name string, change func(*runtimeapi.PodSandboxConfig)) Pod {
	n.tb.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name:      name,
			Namespace: "test",
			Uid:       "uid-" + name,
		},
		LogDirectory: n.Dir + "/logs",
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: n.Group(),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{
				NamespaceOptions: &runtimeapi.NamespaceOption{
					Network: runtimeapi.NamespaceMode_NODE,
					Pid:     runtimeapi.NamespaceMode_CONTAINER,
				},
			},
		},
	}
	if change != nil {
		change(config)
	}

	request := &runtimeapi.RunPodSandboxRequest{Config: config, RuntimeHandler: handler}
	resp, err := n.Pods.RunPodSandbox(n.tb.Context(), request)
	if err != nil {
		n.tb.Fatal(err)
	}

	return Pod{ID: resp.PodSandboxId, Config: config}
}

// SharePID is a change for Sandbox: the pod's containers share a PID namespace.
func SharePID(c *runtimeapi.PodSandboxConfig) {
	c.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
}

// Container returns the configuration of a container of a pod.
func (n *Node) Container(pod Pod, name string, command []string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: n.Image},
		Command:  command,
		LogPath:  name + ".log",
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources: &runtimeapi.LinuxContainerResources{MemoryLimitInBytes: 64 << 20},
			SecurityContext: &runtimeapi.LinuxContainerSecurityContext{
				NamespaceOptions: pod.Config.Linux.SecurityContext.NamespaceOptions,
				Seccomp: &runtimeapi.SecurityProfile{
					ProfileType: runtimeapi.SecurityProfile_RuntimeDefault,
				},
			},
		},
	}
}

// CreateContainer asks for a container and returns its ID.
func (n *Node) CreateContainer(
	ctx context.Context, pod Pod, config *runtimeapi.ContainerConfig,
) (string, error) {
	created, err := n.Pods.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId:  pod.ID,
		Config:        config,
		SandboxConfig: pod.Config,
	})
	return created.GetContainerId(), err
}

// Create makes a container that waits for its start, and returns its ID. change may be nil.
func (n *Node) Create(
	pod Pod, name string, command []string, change func(*runtimeapi.ContainerConfig),
) string {
	n.tb.Helper()
	config := n.Container(pod, name, command)
	if change != nil {
		change(config)
	}
	id, err := n.CreateContainer(n.tb.Context(), pod, config)
	if err != nil {
		n.tb.Fatal(err)
	}
	return id
}

// Run makes a container and starts it.
func (n *Node) Run(
	pod Pod, name string, command []string, change func(*runtimeapi.ContainerConfig),
) string {
	n.tb.Helper()
	id := n.Create(pod, name, command, change)
	if err := n.StartContainer(id); err != nil {
		n.tb.Fatal(err)
	}
	return id
}

// StartContainer starts a container.
func (n *Node) StartContainer(id string) error {
	request := &runtimeapi.StartContainerRequest{ContainerId: id}
	_, err := n.Pods.StartContainer(n.tb.Context(), request)
	return err
}

// StopContainer stops a container within seconds.
func (n *Node) StopContainer(id string, seconds int64) error {
	request := &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds}
	_, err := n.Pods.StopContainer(n.tb.Context(), request)
	return err
}

// RemoveContainer removes a container.
func (n *Node) RemoveContainer(id string) error {
	request := &runtimeapi.RemoveContainerRequest{ContainerId: id}
	_, err := n.Pods.RemoveContainer(n.tb.Context(), request)
	return err
}

// RemovePod stops and removes a pod.
func (n *Node) RemovePod(ctx context.Context, id string) error {
	stop := &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}
	if _, err := n.Pods.StopPodSandbox(ctx, stop); err != nil {
		return err
	}
	remove := &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}
	_, err := n.Pods.RemovePodSandbox(ctx, remove)
	return err
}

// RemoveAll stops and removes all pods.
func (n *Node) RemoveAll(ctx context.Context) {
	n.tb.Helper()
	list, err := n.Pods.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		n.tb.Error(err)
	}
	for _, p := range list.GetItems() {
		if err := n.RemovePod(ctx, p.Id); err != nil {
			n.tb.Errorf("remove pod %s: %v", p.Id, err)
		}
	}
}

// Status returns the status of a container.
func (n *Node) Status(id string) *runtimeapi.ContainerStatus {
	n.tb.Helper()
	request := &runtimeapi.ContainerStatusRequest{ContainerId: id}
	resp, err := n.Pods.ContainerStatus(n.tb.Context(), request)
	if err != nil {
		n.tb.Fatal(err)
	}
	return resp.Status
}

// AwaitExit waits until a container has ended, and returns its status.
func (n *Node) AwaitExit(id string) *runtimeapi.ContainerStatus {
	n.tb.Helper()
	Eventually(n.tb, func() bool {
		return n.Status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	return n.Status(id)
}

// PodStatus returns the state of a pod, and the process ID of the init of its shared PID namespace.
func (n *Node) PodStatus(id string) (state runtimeapi.PodSandboxState, initPid int) {
	n.tb.Helper()
	request := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true}
	resp, err := n.Pods.PodSandboxStatus(n.tb.Context(), request)
	if err != nil {
		n.tb.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(resp.Info["info"]), &info); err != nil {
		n.tb.Fatal(err)
	}
	return resp.Status.State, info.Pid
}

// Exec runs a shell command in a container and returns its standard output.
func (n *Node) Exec(id, command string) (out string, code int32) {
	n.tb.Helper()
	resp, err := n.Pods.ExecSync(n.tb.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: id,
		Cmd:         []string{"sh", "-c", command},
	})
	if err != nil {
		n.tb.Fatal(err)
	}
	return string(resp.Stdout), resp.ExitCode
}

// Leases is a CNI plugin that keeps one file below DIR/leases for each pod that it joined, so that a test
// sees what was never released.
const Leases = `#!/bin/sh
cat >/dev/null
case $CNI_COMMAND in
VERSION) echo '{"cniVersion":"1.0.0","supportedVersions":["1.0.0"]}' ;;
ADD) : >DIR/leases/$CNI_CONTAINERID
	echo '{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"'$CNI_NETNS'"}],
		"ips":[{"address":"10.1.2.3/24","interface":0}]}' ;;
DEL) rm -f DIR/leases/$CNI_CONTAINERID ;;
esac
`

// Network gives the node a network whose only plugin is a program. DIR in its text is the node's directory.
func (n *Node) Network(plugin string) {
	n.tb.Helper()
	const conflist = `{"cniVersion":"1.0.0","name":"test","plugins":[{"type":"test"}]}`
	n.writeFile("plugins/test", strings.ReplaceAll(plugin, "DIR", n.Dir), 0o755)
	n.writeFile("net.d/10-test.conflist", conflist, 0o644)
	if err := os.MkdirAll(n.Dir+"/leases", 0o755); err != nil {
		n.tb.Fatal(err)
	}
	Eventually(n.tb, func() bool {
		s, err := n.Pods.Status(n.tb.Context(), &runtimeapi.StatusRequest{})
		return err == nil && s.Status.Conditions[1].Status
	})
}

func (n *Node) writeFile(name, text string, mode os.FileMode) {
	n.tb.Helper()
	path := filepath.Join(n.Dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		n.tb.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		n.tb.Fatal(err)
	}
}
