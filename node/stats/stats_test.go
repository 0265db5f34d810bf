package stats

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// fake is a runtime with one pod: its init container has ended, its application and its sidecar run.
type fake struct{ cri.RuntimeServiceClient }

func attributes(name string) *cri.ContainerAttributes {
	return &cri.ContainerAttributes{Id: "id-" + name, Metadata: &cri.ContainerMetadata{Name: name}}
}

func used(name string) *cri.ContainerStats {
	return &cri.ContainerStats{
		Attributes: attributes(name),
		Cpu:        &cri.CpuUsage{UsageCoreNanoSeconds: &cri.UInt64Value{Value: 2e9}},
		Memory:     &cri.MemoryUsage{WorkingSetBytes: &cri.UInt64Value{Value: 4096}},
	}
}

func (fake) ListPodSandboxStats(
	context.Context, *cri.ListPodSandboxStatsRequest, ...grpc.CallOption,
) (*cri.ListPodSandboxStatsResponse, error) {
	web := &cri.PodSandboxMetadata{Name: "web", Namespace: "shop", Uid: "u"}
	return &cri.ListPodSandboxStatsResponse{Stats: []*cri.PodSandboxStats{{
		Attributes: &cri.PodSandboxAttributes{Id: "s", Metadata: web},
		Linux: &cri.LinuxPodSandboxStats{Containers: []*cri.ContainerStats{
			{Attributes: attributes("init")},
			used("app"),
			{Attributes: attributes("young")}, // its figures are not there yet
		}},
	}}}, nil
}

func (fake) ListContainers(
	context.Context, *cri.ListContainersRequest, ...grpc.CallOption,
) (*cri.ListContainersResponse, error) {
	made := time.Unix(1_000_000, 0).UnixNano()
	return &cri.ListContainersResponse{Containers: []*cri.Container{
		{Id: "id-init", State: cri.ContainerState_CONTAINER_EXITED, CreatedAt: made},
		{Id: "id-app", State: cri.ContainerState_CONTAINER_RUNNING, CreatedAt: made},
		{Id: "id-young", State: cri.ContainerState_CONTAINER_RUNNING, CreatedAt: made},
	}}, nil
}

func collector() *Collector {
	return New(Config{Runtime: fake{}, Pods: func() []*v1.Pod { return nil }})
}

// A start time of a container without its CPU time makes metrics-server drop the whole pod.
func TestResourceMetricsAreOfRunningContainersThatHaveAll(t *testing.T) {
	p := &page{}
	text, err := collector().resource(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}

	for _, name := range []string{
		"container_cpu_usage_seconds_total",
		"container_memory_working_set_bytes",
		"container_start_time_seconds",
	} {
		var found []string
		for line := range strings.Lines(string(text)) {
			if strings.HasPrefix(line, name+"{") {
				found = append(found, line)
			}
		}

		if len(found) != 1 || !strings.Contains(found[0], `container="app"`) {
			t.Errorf("%s: %q, want the one of app", name, found)
		}
	}
}

func TestSummaryHasNoContainersThatEnded(t *testing.T) {
	pods, err := collector().pods(t.Context(), true)
	if err != nil || len(pods) != 1 || len(pods[0].Containers) != 2 {
		t.Fatalf("%+v, %v", pods, err)
	}
	for _, c := range pods[0].Containers {
		if c.Name == "init" || c.StartTime.Unix() != 1_000_000 {
			t.Errorf("%s started at %v", c.Name, c.StartTime)
		}
	}
}

// A server that is gone must cost neither the answer about all other volumes nor a thread for each question.
func TestVolumeThatDoesNotAnswerIsAskedOnce(t *testing.T) {
	var q questions
	var asked atomic.Int32
	gone := make(chan struct{})
	defer close(gone)

	for range 3 {
		got := q.usage("/dead", func(string) *statsapi.FsStats { asked.Add(1); <-gone; return nil })
		if got != nil {
			t.Errorf("%+v", got)
		}
	}

	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}

	want := &statsapi.FsStats{}
	if got := q.usage("/alive", func(string) *statsapi.FsStats { return want }); got != want {
		t.Errorf("%+v", got)
	}
}
