package inventory_test

import (
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/inventory"
)

func TestVolumesAreMountedUntilTheirPodIsDropped(t *testing.T) {
	var i inventory.Inventory
	pod := &v1.Pod{Spec: v1.PodSpec{Volumes: []v1.Volume{{Name: "a"}, {Name: "b"}}}}
	pod.UID = "u"
	for _, step := range []struct {
		mounted string
		want    int
	}{{"a", 1}, {"a", 1}, {"b", 2}, {"", 2}} {
		i.Add(pod, func(name string) bool { return name == step.mounted })
		if got := len(i.All()); got != step.want {
			t.Errorf("after %q: %d volumes, want %d", step.mounted, got, step.want)
		}
	}

	i.Drop("other")
	i.Drop(pod.UID)
	if left := i.All(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
