package podcgroup

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/internal/cgroup"
	"github.com/trivet-node/trivet/internal/testenv"
)

// ownRoot returns the machine's control groups and the path of one for the test, which is removed with what
// is below it.
func ownRoot(t *testing.T) (host *cgroup.Host, root string) {
	t.Helper()
	testenv.Root(t)
	host, err := cgroup.Open()
	if err != nil {
		t.Fatal(err)
	}

	root = "/trivet-test-" + t.Name()
	t.Cleanup(func() {
		if err := host.Remove(context.WithoutCancel(t.Context()), root); err != nil {
			t.Error(err)
		}
	})

	return host, root
}

func TestAllPodsTogetherAreBounded(t *testing.T) {
	host, root := ownRoot(t)
	tree, err := New(Config{Host: host, Root: root, Driver: "cgroupfs"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	for _, want := range []bool{true, false} {
		changed, err := tree.Bound(t.Context(), cgroup.Limits{PIDs: 30000, Memory: 1 << 30})
		if err != nil || changed != want {
			t.Fatalf("changed %v, %v", changed, err)
		}
	}

	pids, err := os.ReadFile(filepath.Join(host.Dir("pids", root+"/kubepods"), "pids.max"))
	if err != nil || strings.TrimSpace(string(pids)) != "30000" {
		t.Errorf("pids.max of kubepods %q, %v; want 30000", pids, err)
	}
	if u, err := host.Usage(root + "/kubepods"); err != nil || u.MemoryLimit != 1<<30 {
		t.Errorf("memory limit of kubepods %d, %v; want 1 GiB", u.MemoryLimit, err)
	}
}

func TestBurstablePodsAreWorthWhatTheyRequest(t *testing.T) {
	host, root := ownRoot(t)
	tree, err := New(Config{Host: host, Root: root, Driver: "cgroupfs"})
	if err != nil {
		t.Fatal(err)
	}
	if err := tree.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}

	requesting := func(cpu string) *v1.Pod {
		return pod(v1.ResourceRequirements{
			Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)},
		})
	}

	ended := requesting("8")
	ended.Status.Phase = v1.PodSucceeded
	guaranteed := pod(v1.ResourceRequirements{Requests: amounts("4", "1Mi"), Limits: amounts("4", "1Mi")})
	for _, c := range []struct {
		name string
		pods []*v1.Pod
		want uint64
	}{
		{"none", []*v1.Pod{guaranteed, pod(v1.ResourceRequirements{})}, 2},
		{"two", []*v1.Pod{requesting("1"), guaranteed, requesting("500m"), ended}, 1536},
		{"one has gone", []*v1.Pod{requesting("500m")}, 512},
	} {
		if err := tree.Balance(t.Context(), c.pods); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}

		file, want := "cpu.shares", c.want
		if host.V2 {
			file, want = "cpu.weight", cgroup.Weight(c.want)
		}

		got, err := os.ReadFile(filepath.Join(host.Dir("cpu", root+"/kubepods/burstable"), file))
		if err != nil || strings.TrimSpace(string(got)) != strconv.FormatUint(want, 10) {
			t.Errorf("%s: %s %q, %v; want %d", c.name, file, got, err, want)
		}
	}
}
