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
