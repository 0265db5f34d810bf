package stats

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// fake is a runtime with one pod: its init container has ended, its application and its sidecar run.
type fake struct{ Runtime }

func (fake) Stats(context.Context) ([]runtime.PodStats, error) {
	return []runtime.PodStats{{
		Pod: runtime.Pod{UID: "u", Namespace: "shop", Name: "web"},
		Containers: []runtime.ContainerStats{
			{ID: "id-init", Name: "init"},
			{
				ID:     "id-app",
				Name:   "app",
				CPU:    &statsapi.CPUStats{UsageCoreNanoSeconds: new(uint64(2e9))},
				Memory: &statsapi.MemoryStats{WorkingSetBytes: new(uint64(4096))},
			},
			{ID: "id-young", Name: "young"}, // its figures are not there yet
		},
	}}, nil
}

func (fake) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	made := time.Unix(1_000_000, 0)
	return []runtime.Container{
		{ID: "id-init", State: plan.Exited, Created: made},
		{ID: "id-app", State: plan.Running, Created: made},
		{ID: "id-young", State: plan.Running, Created: made},
	}, nil
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
