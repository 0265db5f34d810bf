package nodetest

import (
	"context"
	"encoding/json"
	"path/filepath"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Client makes the calls that kubelet makes.
type Client struct {
	Pods   runtimeapi.RuntimeServiceClient
	Images runtimeapi.ImageServiceClient

	// Dir is the directory of the node, in which pods have their logs.
	Dir string

	// Image is the image that containers run: a busybox.
	Image string

	tb testing.TB
}

// Group is the cgroup of all pods of the node.
func (c *Client) Group() string { return "/trivet-cri-test-" + filepath.Base(c.Dir) }

// Pull pulls the image.
func (c *Client) Pull() {
	c.tb.Helper()
	request := &runtimeapi.PullImageRequest{Image: &runtimeapi.ImageSpec{Image: c.Image}}
	if _, err := c.Images.PullImage(c.tb.Context(), request); err != nil {
		c.tb.Fatal(err)
	}
}

// Pod is a pod sandbox and what it was made from.
type Pod struct {
	ID     string
	Config *runtimeapi.PodSandboxConfig
}

// Sandbox makes a pod on the host's network whose containers have a PID namespace each. change, which may be
// nil, changes that.
func (c *Client) Sandbox(name string, change func(*runtimeapi.PodSandboxConfig)) Pod {
	c.tb.Helper()
	return c.SandboxOf("", name, change)
}

// SandboxOf makes a pod of a runtime handler.
func (c *Client) SandboxOf(handler, name string, change func(*runtimeapi.PodSandboxConfig)) Pod {
	c.tb.Helper()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name:      name,
			Namespace: "test",
			Uid:       "uid-" + name,
		},
		LogDirectory: c.Dir + "/logs",
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: c.Group(),
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
	resp, err := c.Pods.RunPodSandbox(c.tb.Context(), request)
	if err != nil {
		c.tb.Fatal(err)
	}

	return Pod{ID: resp.PodSandboxId, Config: config}
}

// OwnUsers gives a pod a user namespace, whose IDs are 65536 from first on, and a network: that of the host
// would not belong to it.
func OwnUsers(first uint32) func(*runtimeapi.PodSandboxConfig) {
	return func(config *runtimeapi.PodSandboxConfig) {
		options := config.Linux.SecurityContext.NamespaceOptions
		options.Network = runtimeapi.NamespaceMode_POD
		options.UsernsOptions = &runtimeapi.UserNamespace{
			Mode: runtimeapi.NamespaceMode_POD,
			Uids: Mappings(first),
			Gids: Mappings(first),
		}
	}
}

// Mappings are those of OwnUsers.
func Mappings(first uint32) []*runtimeapi.IDMapping {
	return []*runtimeapi.IDMapping{{HostId: first, Length: 1 << 16}}
}

// SharePID is a change for Sandbox: the pod's containers share a PID namespace.
func SharePID(config *runtimeapi.PodSandboxConfig) {
	config.Linux.SecurityContext.NamespaceOptions.Pid = runtimeapi.NamespaceMode_POD
}

// Container returns the configuration of a container of a pod.
func (c *Client) Container(pod Pod, name string, command []string) *runtimeapi.ContainerConfig {
	return &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: name},
		Image:    &runtimeapi.ImageSpec{Image: c.Image},
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
func (c *Client) CreateContainer(
	ctx context.Context, pod Pod, config *runtimeapi.ContainerConfig,
) (string, error) {
	created, err := c.Pods.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId:  pod.ID,
		Config:        config,
		SandboxConfig: pod.Config,
	})
	return created.GetContainerId(), err
}

// Create makes a container that waits for its start, and returns its ID. change may be nil.
func (c *Client) Create(
	pod Pod, name string, command []string, change func(*runtimeapi.ContainerConfig),
) string {
	c.tb.Helper()
	config := c.Container(pod, name, command)
	if change != nil {
		change(config)
	}
	id, err := c.CreateContainer(c.tb.Context(), pod, config)
	if err != nil {
		c.tb.Fatal(err)
	}
	return id
}

// Run makes a container and starts it.
func (c *Client) Run(
	pod Pod, name string, command []string, change func(*runtimeapi.ContainerConfig),
) string {
	c.tb.Helper()
	id := c.Create(pod, name, command, change)
	if err := c.StartContainer(id); err != nil {
		c.tb.Fatal(err)
	}
	return id
}

// StartContainer starts a container.
func (c *Client) StartContainer(id string) error {
	request := &runtimeapi.StartContainerRequest{ContainerId: id}
	_, err := c.Pods.StartContainer(c.tb.Context(), request)
	return err
}

// StopContainer stops a container within seconds.
func (c *Client) StopContainer(id string, seconds int64) error {
	request := &runtimeapi.StopContainerRequest{ContainerId: id, Timeout: seconds}
	_, err := c.Pods.StopContainer(c.tb.Context(), request)
	return err
}

// RemoveContainer removes a container.
func (c *Client) RemoveContainer(id string) error {
	request := &runtimeapi.RemoveContainerRequest{ContainerId: id}
	_, err := c.Pods.RemoveContainer(c.tb.Context(), request)
	return err
}

// RemovePod stops and removes a pod.
func (c *Client) RemovePod(ctx context.Context, id string) error {
	stop := &runtimeapi.StopPodSandboxRequest{PodSandboxId: id}
	if _, err := c.Pods.StopPodSandbox(ctx, stop); err != nil {
		return err
	}
	remove := &runtimeapi.RemovePodSandboxRequest{PodSandboxId: id}
	_, err := c.Pods.RemovePodSandbox(ctx, remove)
	return err
}

// RemoveAll stops and removes all pods.
func (c *Client) RemoveAll(ctx context.Context) {
	c.tb.Helper()
	list, err := c.Pods.ListPodSandbox(ctx, &runtimeapi.ListPodSandboxRequest{})
	if err != nil {
		c.tb.Error(err)
	}
	for _, p := range list.GetItems() {
		if err := c.RemovePod(ctx, p.Id); err != nil {
			c.tb.Errorf("remove pod %s: %v", p.Id, err)
		}
	}
}

// Status returns the status of a container.
func (c *Client) Status(id string) *runtimeapi.ContainerStatus {
	c.tb.Helper()
	request := &runtimeapi.ContainerStatusRequest{ContainerId: id}
	resp, err := c.Pods.ContainerStatus(c.tb.Context(), request)
	if err != nil {
		c.tb.Fatal(err)
	}
	return resp.Status
}

// AwaitExit waits until a container has ended, and returns its status.
func (c *Client) AwaitExit(id string) *runtimeapi.ContainerStatus {
	c.tb.Helper()
	Eventually(c.tb, func() bool {
		return c.Status(id).State == runtimeapi.ContainerState_CONTAINER_EXITED
	})
	return c.Status(id)
}

// PodStatus returns the state of a pod, and the process ID of the init of its shared PID namespace.
func (c *Client) PodStatus(id string) (state runtimeapi.PodSandboxState, initPid int) {
	c.tb.Helper()
	request := &runtimeapi.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true}
	resp, err := c.Pods.PodSandboxStatus(c.tb.Context(), request)
	if err != nil {
		c.tb.Fatal(err)
	}
	var info struct{ Pid int }
	if err := json.Unmarshal([]byte(resp.Info["info"]), &info); err != nil {
		c.tb.Fatal(err)
	}
	return resp.Status.State, info.Pid
}

// Exec runs a shell command in a container and returns its standard output.
func (c *Client) Exec(id, command string) (out string, code int32) {
	c.tb.Helper()
	resp, err := c.Pods.ExecSync(c.tb.Context(), &runtimeapi.ExecSyncRequest{
		ContainerId: id,
		Cmd:         []string{"sh", "-c", command},
	})
	if err != nil {
		c.tb.Fatal(err)
	}
	return string(resp.Stdout), resp.ExitCode
}
