package criconfig

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/podspec"
)

// files are those of the memory of a container on cgroup v2: what they have that is neither throttled nor
// protected, with these, a name and its value each.
func files(pairs ...string) map[string]string {
	out := map[string]string{
		"memory.min":  "0",
		"memory.low":  "0",
		"memory.high": "max",
	}
	for pair := range slices.Chunk(pairs, 2) {
		out[pair[0]] = pair[1]
	}
	return out
}

func TestContainersAreThrottledAndProtectedByWhatTheyRequest(t *testing.T) {
	list := func(memory string) v1.ResourceList {
		if memory == "" {
			return nil
		}
		return v1.ResourceList{
			v1.ResourceCPU:    resource.MustParse("1"),
			v1.ResourceMemory: resource.MustParse(memory),
		}
	}
	throttled := podspec.MemoryQoS{Throttling: 0.5, Allocatable: 100 << 20}
	both := podspec.MemoryQoS{Throttling: 0.5, Tiered: true, Allocatable: 100 << 20}

	for _, c := range []struct {
		name           string
		qos            podspec.MemoryQoS
		request, limit string
		whole          string // limit of the pod
		want           map[string]string
	}{
		{"off", podspec.MemoryQoS{}, "10Mi", "20Mi", "", files()},
		{"burstable", throttled, "10Mi", "20Mi", "", files("memory.high", "15728640")},
		{"without a limit", throttled, "10Mi", "", "", files("memory.high", "57671680")},
		{"best effort", throttled, "", "", "", files("memory.high", "52428800")},
		{"guaranteed", both, "10Mi", "10Mi", "", files("memory.min", "10485760")},
		{"burstable, protected", both, "10Mi", "20Mi", "", files(
			"memory.high", "15728640",
			"memory.low", "10485760",
		)},
		{"a limit of the pod", both, "10Mi", "", "50Mi", files("memory.low", "10485760")},
	} {
		one := v1.Container{Name: "c", Resources: v1.ResourceRequirements{
			Requests: list(c.request),
			Limits:   list(c.limit),
		}}
		pod := podOf(func(s *v1.PodSpec) {
			s.Containers = []v1.Container{one}
			if c.whole != "" {
				s.Resources = &v1.ResourceRequirements{Requests: list(c.request), Limits: list(c.whole)}
			}
		})

		node := Node{CgroupV2: true, SingleOOMKill: true, Memory: c.qos}
		if diff := cmp.Diff(c.want, Resources(node, pod, &one).Unified); diff != "" {
			t.Errorf("%s: %s", c.name, diff)
		}
		if got := Resources(Node{Memory: c.qos}, pod, &one).Unified; got != nil {
			t.Errorf("%s, cgroup v1: %v", c.name, got)
		}
	}
}
