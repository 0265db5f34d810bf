package eviction

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/threshold"
)

// measured is a pod with two containers and an init container, as it was measured.
func measuredPod(resources ...string) candidate {
	p := spec{name: "p"}.pod()
	p.Spec.Containers = nil
	for i, name := range []string{"a", "b", "side"} {
		c := v1.Container{Name: name}
		if i < len(resources) && resources[i] != "" {
			c.Resources.Requests = v1.ResourceList{
				v1.ResourceMemory:           resource.MustParse(resources[i]),
				v1.ResourceEphemeralStorage: resource.MustParse(resources[i]),
			}
		}

		if name == "side" {
			p.Spec.InitContainers = append(p.Spec.InitContainers, c)
		} else {
			p.Spec.Containers = append(p.Spec.Containers, c)
		}
	}

	const Mi = 1 << 20
	usage := Usage{Memory: 700 * Mi, Containers: map[string]ContainerUsage{
		"a":    {Memory: new(int64(400 * Mi)), Layer: &Disk{Bytes: 3 * Mi}, Logs: &Disk{Bytes: 1024}},
		"b":    {Memory: new(int64(200 * Mi)), Layer: &Disk{Bytes: 5 * Mi}},
		"side": {Memory: new(int64(100*Mi + 1)), Layer: &Disk{}, Logs: &Disk{Bytes: 7}},
	}}
	return candidate{pod: p, usage: usage, measured: true}
}

func seen(signal string, left int64) Observation {
	return Observation{signal: {Left: left, Capacity: 4 << 30}}
}

// The texts are those that kubelet 1.37 writes.
func TestMessagesAreThoseOfKubelet(t *testing.T) {
	podLevel := measuredPod()
	podLevel.pod.Spec.Resources = &v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("300Mi")},
	}

	for name, c := range map[string]struct {
		pod         candidate
		threshold   string
		left        int64
		want        string
		annotations map[string]string
	}{
		"memory": {
			pod:       measuredPod("100Mi", "200Mi", "100Mi"),
			threshold: "memory.available<100Mi",
			left:      50<<20 + 1024,
			want: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51201Ki. " +
				"Container a was using 400Mi, request is 100Mi, has larger consumption of memory. " +
				"Container side was using 104857601, request is 100Mi, has larger consumption of memory. ",
			annotations: map[string]string{
				"offending_containers":       "a,side",
				"offending_containers_usage": "400Mi,104857601",
				"starved_resource":           "memory",
			},
		},
		"memory of all pods": {
			pod:       measuredPod("1Gi", "1Gi", "1Gi"),
			threshold: "allocatableMemory.available<100Mi",
			want:      "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0. ",
			annotations: map[string]string{
				"offending_containers":       "",
				"offending_containers_usage": "",
				"starved_resource":           "memory",
			},
		},
		"memory that the pod asked for as a whole": {
			pod:       podLevel,
			threshold: "memory.available<100Mi",
			want: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0. " +
				"Pod p was using 700Mi, request is 300Mi, has larger consumption of memory. " +
				"Container a was using 400Mi, request is 0, has larger consumption of memory. " +
				"Container b was using 200Mi, request is 0, has larger consumption of memory. " +
				"Container side was using 104857601, request is 0, has larger consumption of memory. ",
			annotations: map[string]string{
				"offending_pod":              "p",
				"offending_pod_usage":        "700Mi",
				"offending_containers":       "a,b,side",
				"offending_containers_usage": "400Mi,200Mi,104857601",
				"starved_resource":           "memory",
			},
		},

		// Of b it is not known how large its logs are.
		"disk": {
			pod:       measuredPod("1Mi"),
			threshold: "nodefs.available<10%",
			left:      1 << 20,
			want: "The node was low on resource: ephemeral-storage. " +
				"Threshold quantity: 429496736, available: 1Mi. " +
				"Container a was using 3073Ki, request is 1Mi, has larger consumption of ephemeral-storage. " +
				"Container side was using 7, request is 0, has larger consumption of ephemeral-storage. ",
			annotations: map[string]string{
				"offending_containers":       "a,side",
				"offending_containers_usage": "3073Ki,7",
				"starved_resource":           "ephemeral-storage",
			},
		},
		"inodes": {
			pod:       measuredPod(),
			threshold: "imagefs.inodesFree<25%",
			left:      12345678,
			want:      "The node was low on resource: inodes. Threshold quantity: 1Gi, available: 12345678. ",
			annotations: map[string]string{
				"offending_containers":       "",
				"offending_containers_usage": "",
				"starved_resource":           "inodes",
			},
		},
		"processes": {
			pod:       measuredPod(),
			threshold: "pid.available<1k",
			left:      2000,
			want:      "The node was low on resource: pids. Threshold quantity: 1k, available: 2k. ",
			annotations: map[string]string{
				"offending_containers":       "",
				"offending_containers_usage": "",
				"starved_resource":           "pids",
			},
		},
		"a pod that was not measured": {
			pod:         candidate{pod: spec{name: "p"}.pod()},
			threshold:   "memory.available<1Gi",
			left:        7,
			want:        "The node was low on resource: memory. Threshold quantity: 1Gi, available: 7. ",
			annotations: map[string]string{},
		},
	} {
		met := thresholds(t, c.threshold)
		got, annotations := message(c.pod, met, seen(met[0].Signal, c.left))
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
		if diff := cmp.Diff(c.annotations, annotations); diff != "" {
			t.Errorf("%s: annotations: -want +got:\n%s", name, diff)
		}
	}
}

func TestAMessageWithoutAnObservationNamesTheResource(t *testing.T) {
	met := []threshold.Threshold{{Signal: threshold.Memory}}
	if got, _ := message(measuredPod("1Gi", "1Gi", "1Gi"), met, nil); got != "The node was low on resource: memory. " {
		t.Errorf("%q", got)
	}
}
