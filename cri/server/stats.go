package server

import (
	"context"
	"errors"
	"io/fs"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/container"
	"github.com/trivet-node/trivet/cri/sandbox"
	"github.com/trivet-node/trivet/internal/cgroup"
)

func now() time.Time { return time.Now() }

// ContainerStats reads one container's cgroup.
func (s *Server) ContainerStats(
	_ context.Context,
	r *runtimeapi.ContainerStatsRequest,
) (*runtimeapi.ContainerStatsResponse, error) {
	c, err := s.cfg.Containers.Get(r.ContainerId)
	if err != nil {
		return nil, coded(err)
	}
	st, err := s.stats(c)
	if err != nil {
		return nil, coded(err)
	}
	return &runtimeapi.ContainerStatsResponse{Stats: st}, nil
}

// ListContainerStats reads those of all running containers.
func (s *Server) ListContainerStats(
	_ context.Context,
	r *runtimeapi.ListContainerStatsRequest,
) (*runtimeapi.ListContainerStatsResponse, error) {
	return &runtimeapi.ListContainerStatsResponse{Stats: s.allStats(r.Filter)}, nil
}

// StreamContainerStats does so in pieces.
func (s *Server) StreamContainerStats(
	r *runtimeapi.StreamContainerStatsRequest,
	stream runtimeapi.RuntimeService_StreamContainerStatsServer,
) error {
	for piece := range slices.Chunk(s.allStats(r.Filter), piece) {
		if err := stream.Send(&runtimeapi.StreamContainerStatsResponse{ContainerStats: piece}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) allStats(f *runtimeapi.ContainerStatsFilter) []*runtimeapi.ContainerStats {
	containers := s.cfg.Containers.List()
	s.forget(containers)
	return s.statsOf(slices.DeleteFunc(containers, func(c container.Record) bool {
		return !strings.HasPrefix(c.ID, f.GetId()) || !strings.HasPrefix(c.Sandbox, f.GetPodSandboxId()) ||
			!matches(c.ContainerConfig().GetLabels(), f.GetLabelSelector())
	}))
}

// readers is how many containers are read at once: it is the kernel's work, and spreads over processors.
const readers = 4

// statsOf leaves out a container that cannot be read: it must not hide the others.
func (s *Server) statsOf(containers []container.Record) []*runtimeapi.ContainerStats {
	all := make([]*runtimeapi.ContainerStats, len(containers))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(readers, runtime.GOMAXPROCS(0), len(containers)) {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < len(all); i = int(next.Add(1)) - 1 {
				c := containers[i]
				st, err := s.stats(c)
				if err != nil {
					s.cfg.Log.Warn("container is left out of the stats", "container", c.ID, "err", err)
				}

				all[i] = st
			}
		})
	}

	wg.Wait()
	return slices.DeleteFunc(all, func(st *runtimeapi.ContainerStats) bool { return st == nil })
}

// forget drops the sizes of containers that are gone.
func (s *Server) forget(known []container.Record) {
	live := make(map[string]bool, len(known))
	for _, c := range known {
		live[c.ID] = true
	}
	s.written.keep(live)
}

func (s *Server) stats(c container.Record) (*runtimeapi.ContainerStats, error) {
	config := c.ContainerConfig()
	st := &runtimeapi.ContainerStats{Attributes: &runtimeapi.ContainerAttributes{
		Id:          c.ID,
		Metadata:    config.GetMetadata(),
		Labels:      config.GetLabels(),
		Annotations: config.GetAnnotations(),
	}}

	written, counted, err := s.written.of(c.ID)
	if err != nil {
		return nil, err
	}

	st.WritableLayer = &runtimeapi.FilesystemUsage{
		Timestamp:  counted.UnixNano(),
		FsId:       &runtimeapi.FilesystemIdentifier{Mountpoint: s.cfg.Rootfs.Dir()},
		UsedBytes:  &runtimeapi.UInt64Value{Value: uint64(written.Bytes)},
		InodesUsed: &runtimeapi.UInt64Value{Value: uint64(written.Inodes)},
	}

	box, err := s.cfg.Sandboxes.Get(c.Sandbox)
	if err != nil || c.State != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return st, nil
	}

	usage, err := s.cfg.Cgroups.Usage(s.cfg.Driver.Group(box.PodConfig().GetLinux().GetCgroupParent(), c.ID))

	// it ends just now
	if errors.Is(err, fs.ErrNotExist) {
		return st, nil
	}
	if err != nil {
		return nil, err
	}

	st.Cpu, st.Memory = cpuUsage(usage), memoryUsage(usage)
	st.Swap = &runtimeapi.SwapUsage{
		Timestamp:      usage.Time.UnixNano(),
		SwapUsageBytes: &runtimeapi.UInt64Value{Value: usage.Swap},
	}

	return st, nil
}

func cpuUsage(u cgroup.Usage) *runtimeapi.CpuUsage {
	return &runtimeapi.CpuUsage{
		Timestamp:            u.Time.UnixNano(),
		UsageCoreNanoSeconds: &runtimeapi.UInt64Value{Value: uint64(u.CPU)},
	}
}

func memoryUsage(u cgroup.Usage) *runtimeapi.MemoryUsage {
	m := &runtimeapi.MemoryUsage{
		Timestamp:       u.Time.UnixNano(),
		WorkingSetBytes: &runtimeapi.UInt64Value{Value: u.WorkingSet},
		UsageBytes:      &runtimeapi.UInt64Value{Value: u.Memory},
		RssBytes:        &runtimeapi.UInt64Value{Value: u.RSS},
		PageFaults:      &runtimeapi.UInt64Value{Value: u.PageFaults},
		MajorPageFaults: &runtimeapi.UInt64Value{Value: u.MajorPageFaults},
	}
	if u.MemoryLimit > u.WorkingSet {
		m.AvailableBytes = &runtimeapi.UInt64Value{Value: u.MemoryLimit - u.WorkingSet}
	}

	return m
}

// PodSandboxStats reads a pod's cgroup and those of its containers.
func (s *Server) PodSandboxStats(
	_ context.Context,
	r *runtimeapi.PodSandboxStatsRequest,
) (*runtimeapi.PodSandboxStatsResponse, error) {
	box, err := s.cfg.Sandboxes.Get(r.PodSandboxId)
	if err != nil {
		return nil, coded(err)
	}
	return &runtimeapi.PodSandboxStatsResponse{Stats: s.podStats(box)}, nil
}

// ListPodSandboxStats reads those of all ready pods.
func (s *Server) ListPodSandboxStats(
	_ context.Context,
	r *runtimeapi.ListPodSandboxStatsRequest,
) (*runtimeapi.ListPodSandboxStatsResponse, error) {
	return &runtimeapi.ListPodSandboxStatsResponse{Stats: s.allPodStats(r.Filter)}, nil
}

// StreamPodSandboxStats does so in pieces.
func (s *Server) StreamPodSandboxStats(
	r *runtimeapi.StreamPodSandboxStatsRequest,
	stream runtimeapi.RuntimeService_StreamPodSandboxStatsServer,
) error {
	for piece := range slices.Chunk(s.allPodStats(r.Filter), piece) {
		if err := stream.Send(&runtimeapi.StreamPodSandboxStatsResponse{PodSandboxStats: piece}); err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) allPodStats(f *runtimeapi.PodSandboxStatsFilter) []*runtimeapi.PodSandboxStats {
	var all []*runtimeapi.PodSandboxStats
	s.forget(s.cfg.Containers.List())
	for _, box := range s.cfg.Sandboxes.List() {
		if box.State != sandbox.Ready || !strings.HasPrefix(box.ID, f.GetId()) ||
			!matches(box.PodConfig().GetLabels(), f.GetLabelSelector()) {
			continue
		}
		all = append(all, s.podStats(box))
	}
	return all
}

func (s *Server) podStats(box sandbox.Record) *runtimeapi.PodSandboxStats {
	config := box.PodConfig()
	st := &runtimeapi.PodSandboxStats{Linux: &runtimeapi.LinuxPodSandboxStats{}, Attributes: &runtimeapi.PodSandboxAttributes{
		Id:          box.ID,
		Metadata:    config.GetMetadata(),
		Labels:      config.GetLabels(),
		Annotations: config.GetAnnotations(),
	}}

	st.Linux.Containers = s.statsOf(s.cfg.Containers.Of(box.ID))
	if parent := config.GetLinux().GetCgroupParent(); parent != "" {
		if usage, err := s.cfg.Cgroups.Usage(s.cfg.Driver.Group(parent, "")); err == nil {
			st.Linux.Cpu, st.Linux.Memory = cpuUsage(usage), memoryUsage(usage)
			st.Linux.Process = &runtimeapi.ProcessUsage{
				Timestamp:    usage.Time.UnixNano(),
				ProcessCount: &runtimeapi.UInt64Value{Value: usage.PIDs},
			}
		}
	}

	return st
}
