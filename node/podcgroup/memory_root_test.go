package podcgroup

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// On cgroup v1 the setting has no effect, and does no harm.
func TestMemoryOfPodsIsProtectedAsLongAsTheConfigurationSaysSo(t *testing.T) {
	host, root := ownRoot(t)
	pods := []*v1.Pod{
		pod(v1.ResourceRequirements{Requests: amounts("1", "8Mi")}),
		pod(v1.ResourceRequirements{Requests: amounts("1", "4Mi"), Limits: amounts("1", "4Mi")}),
	}
	for _, c := range []struct {
		qos  podspec.MemoryQoS
		want map[string]string
	}{
		{podspec.MemoryQoS{Tiered: true}, map[string]string{
			"kubepods/memory.min":           "12582912",
			"kubepods/memory.low":           "8388608",
			"kubepods/burstable/memory.min": "0",
			"kubepods/burstable/memory.low": "8388608",
		}},
		{podspec.MemoryQoS{}, map[string]string{
			"kubepods/memory.min":           "0",
			"kubepods/memory.low":           "0",
			"kubepods/burstable/memory.low": "0",
		}},
	} {
		tree, err := New(Config{
			Host:   host,
			Root:   root,
			Driver: "cgroupfs",
			Memory: c.qos,
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := tree.Setup(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := tree.Balance(t.Context(), pods); err != nil {
			t.Fatal(err)
		}

		for file, want := range c.want {
			data, err := os.ReadFile(filepath.Join(host.Dir("memory", root), file))
			if got := strings.TrimSpace(string(data)); host.V2 && (err != nil || got != want) {
				t.Errorf("%+v: %s is %q, %v; want %s", c.qos, file, got, err, want)
			}
		}
	}
}
