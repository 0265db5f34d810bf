package stats_test

import (
	"os"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/nodetest"
)

func TestMain(m *testing.M) { os.Exit(nodetest.Main(m)) }

// A tree that is deeper than a path can be long must not hide what the others use.
func TestStatsLeaveNobodyOutForAnother(t *testing.T) {
	n := nodetest.New(t)
	n.Pull()
	pod := n.Sandbox("stats", nil)
	deep := n.Run(pod, "deep", []string{"sleep", "1000"}, nil)
	other := n.Run(pod, "other", []string{"sleep", "1000"}, nil)
	makeDeep(t, n.Dir+"/run/rootfs/mounts/"+deep)

	stats, err := n.Pods.ListContainerStats(t.Context(), &runtimeapi.ListContainerStatsRequest{})
	if err != nil || len(stats.GetStats()) != 2 {
		t.Errorf("stats: %v, %v", stats, err)
	}

	for _, s := range stats.GetStats() {
		if s.Attributes.Id == deep && s.WritableLayer.InodesUsed.Value < 10 {
			t.Errorf("stats of the deep one: %v", s)
		}
		if s.Attributes.Id == other && s.Memory.GetWorkingSetBytes().GetValue() == 0 {
			t.Errorf("stats of the other one: %v", s)
		}
	}

	pods, err := n.Pods.ListPodSandboxStats(t.Context(), &runtimeapi.ListPodSandboxStatsRequest{})
	if err != nil || len(pods.Stats) != 1 || len(pods.Stats[0].Linux.Containers) != 2 {
		t.Errorf("pod stats: %v, %v", pods, err)
	}
	if _, err := n.Images.ImageFsInfo(t.Context(), &runtimeapi.ImageFsInfoRequest{}); err != nil {
		t.Error(err)
	}
}

func TestMetricsAreThoseOfTheContainersProcesses(t *testing.T) {
	n := nodetest.New(t)
	n.Network(pair)
	n.Pull()
	pod := n.Sandbox("metrics", ownGroup(n, 0))
	main := n.Run(pod, "main", []string{"sh", "-c", "sleep 1000 & exec sleep 1000"}, nil)

	// There is nobody to answer, but to ask for an address is a packet.
	n.Exec(main, "wget -q -T 1 http://10.1.2.4/")

	var got map[string]uint64
	nodetest.Eventually(t, func() bool {
		got = metricsOf(t, n, pod.ID)
		return got["container_network_transmit_bytes_total eth0"] > 0 && got["container_processes"] == 2
	})
	for name, atLeast := range map[string]uint64{
		"container_memory_usage_bytes":                 1,
		"container_memory_working_set_bytes":           1,
		"container_memory_failures_total pgfault":      1,
		"container_threads":                            2,
		"container_file_descriptors":                   6,
		"container_ulimits_soft max_open_files":        1,
		"container_start_time_seconds":                 1_700_000_000,
		"container_network_receive_packets_total eth1": 1,
		"container_spec_memory_limit_bytes":            64 << 20,
	} {
		if got[name] < atLeast {
			t.Errorf("%s is %d, want at least %d", name, got[name], atLeast)
		}
	}

	request := &runtimeapi.PodSandboxStatsRequest{PodSandboxId: pod.ID}
	stats, err := n.Pods.PodSandboxStats(t.Context(), request)
	network := stats.GetStats().GetLinux().GetNetwork()
	if err != nil || network.GetDefaultInterface().GetName() != "eth0" || len(network.GetInterfaces()) != 1 {
		t.Errorf("network %v, %v", network, err)
	}
}

// metricsOf returns the metrics of a pod and its containers, by name and the first label of their own.
func metricsOf(t *testing.T, n *nodetest.Node, id string) map[string]uint64 {
	t.Helper()
	r, err := n.Pods.ListPodSandboxMetrics(t.Context(), &runtimeapi.ListPodSandboxMetricsRequest{})
	if err != nil {
		t.Fatal(err)
	}

	const baseLabels = 6
	values := map[string]uint64{}
	for _, pod := range r.PodMetrics {
		if pod.PodSandboxId != id {
			continue
		}

		all := pod.Metrics
		for _, c := range pod.ContainerMetrics {
			all = append(all, c.Metrics...)
		}
		for _, m := range all {
			name := m.Name
			if len(m.LabelValues) > baseLabels {
				name += " " + m.LabelValues[baseLabels]
			}
			values[name] = m.Value.GetValue()
		}
	}

	return values
}

// makeDeep makes directories below path, each in the one before, whose names together are longer than a path
// may be.
func makeDeep(t *testing.T, path string) {
	t.Helper()
	dir, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { dir.Close() })
	name := strings.Repeat("n", 200)
	for range 30 {
		if err := dir.Mkdir(name, 0o700); err != nil {
			t.Fatal(err)
		}

		below, err := dir.OpenRoot(name)
		if err != nil {
			t.Fatal(err)
		}

		t.Cleanup(func() { below.Close() })
		dir = below
	}
}
