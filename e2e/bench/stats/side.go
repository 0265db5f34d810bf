package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/e2e/bench"
	"github.com/trivet-node/trivet/e2e/bench/figure"
	"github.com/trivet-node/trivet/e2e/cluster/seat"
	"github.com/trivet-node/trivet/e2e/machine"
)

// call is one of those that are measured.
type call struct {
	name string
	ask  func(context.Context, *side) (size int, err error)

	// slow is a call for which containerd allows itself ten pods a second.
	slow bool
}

// rounds is how often the call is made.
func (c call) rounds(wanted int) int {
	if c.slow {
		return min(wanted, 3)
	}
	return wanted
}

var calls = []call{
	{
		name: "ListContainerStats",
		ask: func(ctx context.Context, s *side) (int, error) {
			r, err := s.pods.ListContainerStats(ctx, &runtimeapi.ListContainerStatsRequest{})
			return proto.Size(r), err
		},
	},
	{
		name: "ListPodSandboxStats",
		ask: func(ctx context.Context, s *side) (int, error) {
			r, err := s.pods.ListPodSandboxStats(ctx, &runtimeapi.ListPodSandboxStatsRequest{})
			return proto.Size(r), err
		},
	},
	{
		name: "ListPodSandboxMetrics",
		slow: true,
		ask: func(ctx context.Context, s *side) (int, error) {
			r, err := s.pods.ListPodSandboxMetrics(ctx, &runtimeapi.ListPodSandboxMetricsRequest{})
			return proto.Size(r), err
		},
	},
	{name: "UpdateContainerResources", ask: update},
}

// update resizes one container after the other, to more and less in turns, as kubelet does in place.
func update(ctx context.Context, s *side) (int, error) {
	id := s.containers[s.updates%len(s.containers)]
	half := int64(s.updates / len(s.containers) % 2)
	s.updates++
	_, err := s.pods.UpdateContainerResources(ctx, &runtimeapi.UpdateContainerResourcesRequest{
		ContainerId: id,
		Linux: &runtimeapi.LinuxContainerResources{
			CpuQuota:           50_000 - 25_000*half,
			CpuPeriod:          100_000,
			CpuShares:          102 - 51*half,
			MemoryLimitInBytes: (64 - 32*half) << 20,
		},
	})
	return 0, err
}

const (
	// registryAddress is on that machine.
	registryAddress = "127.0.0.1:5000"
	containerImage  = registryAddress + "/library/busybox:1.37"
	sandboxImage    = registryAddress + "/pause:3.10.2"

	podCIDR = "10.99.0.0/16"

	// maxMessage is the largest message that kubelet takes.
	maxMessage = 16 << 20
)

// containerdConfig lets containerd run where scores of the OOM killer cannot be lowered.
const containerdConfig = `version = 3
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '` + sandboxImage + "'\n"

// boot starts the machine, the registry, and both CRI servers.
func (o options) boot(ctx context.Context, m *machine.Machine) ([]*side, error) {
	path, network := seat.UpstreamNetwork(seat.Reference.Network(), []string{podCIDR})
	if err := os.MkdirAll(o.dir+"/net.d", 0o755); err != nil {
		return nil, err
	}
	for name, text := range map[string]string{
		"containerd.toml":              containerdConfig,
		"net.d/" + filepath.Base(path): network,
	} {
		if err := os.WriteFile(filepath.Join(o.dir, name), []byte(text), 0o644); err != nil {
			return nil, err
		}
	}

	err := m.Boot(ctx, machine.Config{
		Name:  "stats-bench",
		Group: fmt.Sprintf("/trivet-stats-bench-%d", os.Getpid()),
		Hosts: "127.0.0.1 localhost\n",
		Keep:  []string{"/var/lib/containerd", "/var/lib/trivet", "/var/lib/cni", "/etc/containerd"},
		Expose: map[string]string{
			o.dir:                 o.dir,
			o.programs:            o.programs,
			o.references:          o.references,
			o.images:              o.images,
			o.dir + "/net.d":      "/etc/cni/net.d",
			o.references + "/cni": "/opt/cni/bin",
		},
	})
	if err != nil {
		return nil, err
	}

	return o.start(ctx, m)
}

// start starts the daemons.
func (o options) start(ctx context.Context, m *machine.Machine) ([]*side, error) {
	up, err := m.Command(ctx, "ip", "link", "set", "lo", "up")
	if err != nil {
		return nil, err
	}
	if out, err := up.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("set lo up: %w: %s", err, out)
	}

	registry := []string{"serve", "--dir=" + o.images, "--listen=" + registryAddress}
	for _, d := range []machine.Daemon{
		{Name: "registry", Argv: append([]string{o.programs + "/trivet-images"}, registry...)},
		{Name: "trivet-cri", Argv: []string{o.programs + "/trivet-cri", "--oci-runtime=" + o.oci}},
		{
			Name: "containerd",
			Argv: []string{o.references + "/containerd", "--config=" + o.dir + "/containerd.toml"},

			// It looks for its shim there.
			Env: []string{"PATH=" + o.references + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"},
		},
	} {
		if err := m.Start(d); err != nil {
			return nil, err
		}
	}

	ours := &side{machine: m, program: "trivet-cri", helpers: []string{"trivet-monitor"}}
	theirs := &side{machine: m, program: "containerd", helpers: []string{"containerd-shim-runc-v2"}}
	if err := ours.connect(ctx, "/run/trivet/cri.sock"); err != nil {
		return nil, err
	}
	return []*side{ours, theirs}, theirs.connect(ctx, "/run/containerd/containerd.sock")
}

// side is one CRI server on the machine.
type side struct {
	machine *machine.Machine
	program string

	// helpers are the programs that work for it.
	helpers []string

	pods   runtimeapi.RuntimeServiceClient
	images runtimeapi.ImageServiceClient

	// containers are the IDs of those that run; updates is how often one was resized.
	containers []string
	updates    int
}

// name is the side's in the figures.
func (s *side) name() string {
	if s.program == "trivet-cri" {
		return figure.Ours
	}
	return s.program
}

// ticks is the processor time that the server and its helpers have used, in hundredths of a second.
func (s *side) ticks() int {
	pids := s.machine.Find(s.program)
	for _, helper := range s.helpers {
		pids = append(pids, s.machine.Find(helper)...)
	}
	return bench.CPUOf(pids)
}

// connect waits until the server answers.
func (s *side) connect(ctx context.Context, path string) error {
	ready := func(ctx context.Context, conn *grpc.ClientConn) error {
		r, err := runtimeapi.NewRuntimeServiceClient(conn).Status(ctx, &runtimeapi.StatusRequest{})
		if err != nil {
			return err
		}
		return notReady(r.Status.Conditions)
	}
	large := grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage))
	conn, err := bench.AwaitCRI(ctx, s.machine, path, ready, large)
	if err != nil {
		return fmt.Errorf("%s: %w", s.program, err)
	}

	s.pods = runtimeapi.NewRuntimeServiceClient(conn)
	s.images = runtimeapi.NewImageServiceClient(conn)
	return nil
}

// notReady returns why the server is not ready. containerd has conditions of other types as well.
func notReady(conditions []*runtimeapi.RuntimeCondition) error {
	for _, c := range conditions {
		needed := c.Type == runtimeapi.RuntimeReady || c.Type == runtimeapi.NetworkReady
		if needed && !c.Status {
			return fmt.Errorf("%s: %s", c.Type, c.Message)
		}
	}
	return nil
}

// fill runs pods of one container each.
func (s *side) fill(ctx context.Context, pods int) error {
	image := &runtimeapi.ImageSpec{Image: containerImage}
	if _, err := s.images.PullImage(ctx, &runtimeapi.PullImageRequest{Image: image}); err != nil {
		return err
	}

	for i := range pods {
		if err := s.run(ctx, fmt.Sprint("pod", i), image); err != nil {
			return fmt.Errorf("pod %d: %w", i, err)
		}
	}

	return nil
}

// run makes a pod as kubelet's are, with a cgroup of its own.
func (s *side) run(ctx context.Context, name string, image *runtimeapi.ImageSpec) error {
	pod := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{
			Name:      name,
			Namespace: "default",
			Uid:       s.program + name,
		},
		Labels: map[string]string{
			"io.kubernetes.pod.name":      name,
			"io.kubernetes.pod.namespace": "default",
		},
		LogDirectory: "/var/log/pods/" + s.program + name,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent: "/" + strings.ReplaceAll(s.program, "-", "") + "/" + name,
		},
	}

	made, err := s.pods.RunPodSandbox(ctx, &runtimeapi.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return err
	}

	created, err := s.pods.CreateContainer(ctx, &runtimeapi.CreateContainerRequest{
		PodSandboxId:  made.PodSandboxId,
		SandboxConfig: pod,
		Config: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "main"},
			Image:    image,
			Command:  []string{"sleep", "100000"},
			LogPath:  "main.log",
			Linux: &runtimeapi.LinuxContainerConfig{Resources: &runtimeapi.LinuxContainerResources{
				CpuQuota:           50_000,
				CpuPeriod:          100_000,
				CpuShares:          102,
				MemoryLimitInBytes: 64 << 20,
			}},
		},
	})
	if err != nil {
		return err
	}

	s.containers = append(s.containers, created.ContainerId)
	_, err = s.pods.StartContainer(ctx, &runtimeapi.StartContainerRequest{ContainerId: created.ContainerId})
	return err
}
