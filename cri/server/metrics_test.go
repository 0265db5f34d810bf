package server_test

import (
	"errors"
	"fmt"
	"io"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// labelsOf returns how many labels each described metric has.
func labelsOf(t *testing.T, f *fixture) map[string]int {
	t.Helper()
	described, err := f.ListMetricDescriptors(t.Context(), &runtimeapi.ListMetricDescriptorsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	labels := map[string]int{}
	for _, d := range described.Descriptors {
		labels[d.Name] = len(d.LabelKeys)
	}

	return labels
}

func TestMetricsAreThoseThatAreDescribed(t *testing.T) {
	f := open(t)
	ids := f.run("web", "main", "ended")
	stop := &runtimeapi.StopContainerRequest{ContainerId: ids[2]}
	if _, err := f.StopContainer(t.Context(), stop); err != nil {
		t.Fatal(err)
	}

	labels := labelsOf(t, f)
	r, err := f.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil || len(r.PodMetrics) != 1 || r.PodMetrics[0].PodSandboxId != ids[0] {
		t.Fatalf("%v, %v", r, err)
	}

	containers := r.PodMetrics[0].ContainerMetrics
	if len(containers) != 1 || containers[0].ContainerId != ids[1] || len(containers[0].Metrics) < 40 {
		t.Fatalf("metrics of containers: %v", containers)
	}
	for _, m := range containers[0].Metrics {
		if labels[m.Name] == 0 || len(m.LabelValues) != labels[m.Name] || m.Timestamp == 0 {
			t.Errorf("described with %d labels: %v", labels[m.Name], m)
		}
	}
}

func TestStreamOfMetricsIsTheList(t *testing.T) {
	f := open(t)
	for i := range 60 {
		f.run(fmt.Sprint("pod", i), "main")
	}

	list, err := f.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	stream, err := f.StreamPodSandboxMetrics(t.Context(), &runtimeapi.StreamPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	pieces := 0
	streamed := map[string]*runtimeapi.PodSandboxMetrics{}
	for {
		piece, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}

		pieces++
		for _, pod := range piece.PodSandboxMetrics {
			streamed[pod.PodSandboxId] = pod
		}
	}

	if pieces != 2 || len(streamed) != len(list.PodMetrics) {
		t.Errorf("%d pods in %d pieces, %d in the list", len(streamed), pieces, len(list.PodMetrics))
	}

	for _, pod := range list.PodMetrics {
		same := streamed[pod.PodSandboxId]
		if len(same.GetMetrics()) != len(pod.Metrics) || len(same.GetContainerMetrics()) != 1 {
			t.Errorf("pod %s: %v", pod.PodSandboxId, same)
		}
	}
}
