package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

// BenchmarkListContainerStats asks for the stats of 100 running containers, as kubelet does every 10 s.
func BenchmarkListContainerStats(b *testing.B) {
	n := nodetest.New(b)
	n.Pull()
	pod := n.Sandbox("stats", nil)
	for i := range 100 {
		n.Run(pod, fmt.Sprint("c", i), []string{"sleep", "1000"}, nil)
	}

	before := cpuTime(b, n.Cmd.Process.Pid)
	for b.Loop() {
		resp, err := n.Pods.ListContainerStats(b.Context(), &runtimeapi.ListContainerStatsRequest{})
		if err != nil || len(resp.Stats) != 100 {
			b.Fatalf("%d stats, %v", len(resp.GetStats()), err)
		}
	}

	used := cpuTime(b, n.Cmd.Process.Pid) - before
	// Unlike the time, it does not depend on the load.
	b.ReportMetric(used.Seconds()*1000/float64(b.N), "server-cpu-ms/op")
}

// BenchmarkPodOfOneContainer makes a pod, runs a container in it, lists, and removes both, beside 50 pods
// that stay.
func BenchmarkPodOfOneContainer(b *testing.B) {
	n := nodetest.New(b)
	n.Pull()
	for i := range 50 {
		n.Run(n.Sandbox(fmt.Sprint("stays", i), nil), "c", []string{"sleep", "1000"}, nil)
	}

	before := cpuTime(b, n.Cmd.Process.Pid)
	for b.Loop() {
		pod := n.Sandbox("comes-and-goes", nil)
		n.Run(pod, "c", []string{"sleep", "1000"}, nil)
		list, err := n.Pods.ListContainers(b.Context(), &runtimeapi.ListContainersRequest{})
		if err != nil || len(list.Containers) != 51 {
			b.Fatalf("%d containers, %v", len(list.GetContainers()), err)
		}
		if err := n.RemovePod(b.Context(), pod.ID); err != nil {
			b.Fatal(err)
		}
	}

	used := cpuTime(b, n.Cmd.Process.Pid) - before
	b.ReportMetric(used.Seconds()*1000/float64(b.N), "server-cpu-ms/op")
}

// cpuTime is what a process has used, by the kernel's ticks of 10 ms.
func cpuTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}

	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var ticks int64

	// utime and stime, the 14th and 15th of proc_pid_stat(5)
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			b.Fatal(err)
		}

		ticks += n
	}

	return time.Duration(ticks) * 10 * time.Millisecond
}
