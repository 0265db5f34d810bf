package main

import (
	"fmt"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkListContainerStats asks for the stats of 100 running containers, as kubelet does every 10 s.
func BenchmarkListContainerStats(b *testing.B) {
	n := newNode(b)
	n.pull()
	pod, box := n.sandbox("stats", nil)
	for i := range 100 {
		n.run(pod, box, fmt.Sprint("c", i), []string{"sleep", "1000"}, nil)
	}
	for b.Loop() {
		resp, err := n.pods.ListContainerStats(b.Context(), &runtimeapi.ListContainerStatsRequest{})
		if err != nil || len(resp.Stats) != 100 {
			b.Fatalf("%d stats, %v", len(resp.GetStats()), err)
		}
	}
}
