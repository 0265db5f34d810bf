package eviction

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/threshold"
)

// measuredPod is a pod with two containers and an init container, as it was measured.
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

// written is a message and its annotations, as a test expects them.
type written struct {
	pod       candidate
	threshold string
	left      int64
	want      string

	// names and used are the offending containers, and pod the usage of an offending pod.
	names string
	used  string
	ofPod string
	about string
}

// check compares a message with what was written.
func (w written) check(t *testing.T) {
	t.Helper()
	met := thresholds(t, w.threshold)
	got, annotations := message(w.pod, met, seen(met[0].Signal, w.left))
	if diff := cmp.Diff(w.want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}

	want := map[string]string{}
	if w.pod.measured {
		want["offending_containers"] = w.names
		want["offending_containers_usage"] = w.used
		want["starved_resource"] = w.about
	}
	if w.ofPod != "" {
		want["offending_pod"] = "p"
		want["offending_pod_usage"] = w.ofPod
	}

	if diff := cmp.Diff(want, annotations); diff != "" {
		t.Errorf("annotations: -want +got:\n%s", diff)
	}
}

// The texts are those that kubelet 1.37 writes.
func TestAMessageNamesTheContainersThatUseMoreMemoryThanTheyAskedFor(t *testing.T) {
	written{
		pod:       measuredPod("100Mi", "200Mi", "100Mi"),
		threshold: "memory.available<100Mi",
		left:      50<<20 + 1024,
		want: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 51201Ki. " +
			"Container a was using 400Mi, request is 100Mi, has larger consumption of memory. " +
			"Container side was using 104857601, request is 100Mi, has larger consumption of memory. ",
		names: "a,side",
		used:  "400Mi,104857601",
		about: "memory",
	}.check(t)

	written{
		pod:       measuredPod("1Gi", "1Gi", "1Gi"),
		threshold: "allocatableMemory.available<100Mi",
		want:      "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0. ",
		about:     "memory",
	}.check(t)
}

func TestAMessageNamesThePodThatAskedForMemoryAsAWhole(t *testing.T) {
	pod := measuredPod()
	pod.pod.Spec.Resources = &v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("300Mi")},
	}

	written{
		pod:       pod,
		threshold: "memory.available<100Mi",
		want: "The node was low on resource: memory. Threshold quantity: 100Mi, available: 0. " +
			"Pod p was using 700Mi, request is 300Mi, has larger consumption of memory. " +
			"Container a was using 400Mi, request is 0, has larger consumption of memory. " +
			"Container b was using 200Mi, request is 0, has larger consumption of memory. " +
			"Container side was using 104857601, request is 0, has larger consumption of memory. ",
		names: "a,b,side",
		used:  "400Mi,200Mi,104857601",
		ofPod: "700Mi",
		about: "memory",
	}.check(t)
}

// Of b it is not known how large its logs are.
func TestAMessageNamesTheContainersThatUseMoreDiskThanTheyAskedFor(t *testing.T) {
	written{
		pod:       measuredPod("1Mi"),
		threshold: "nodefs.available<10%",
		left:      1 << 20,
		want: "The node was low on resource: ephemeral-storage. " +
			"Threshold quantity: 429496736, available: 1Mi. " +
			"Container a was using 3073Ki, request is 1Mi, has larger consumption of ephemeral-storage. " +
			"Container side was using 7, request is 0, has larger consumption of ephemeral-storage. ",
		names: "a,side",
		used:  "3073Ki,7",
		about: "ephemeral-storage",
	}.check(t)
}

func TestAMessageNamesNoContainersWhereItIsNotKnownWhatTheyUse(t *testing.T) {
	written{
		pod:       measuredPod(),
		threshold: "imagefs.inodesFree<25%",
		left:      12345678,
		want:      "The node was low on resource: inodes. Threshold quantity: 1Gi, available: 12345678. ",
		about:     "inodes",
	}.check(t)
	written{
		pod:       measuredPod(),
		threshold: "pid.available<1k",
		left:      2000,
		want:      "The node was low on resource: pids. Threshold quantity: 1k, available: 2k. ",
		about:     "pids",
	}.check(t)
	written{
		pod:       candidate{pod: spec{name: "p"}.pod()},
		threshold: "memory.available<1Gi",
		left:      7,
		want:      "The node was low on resource: memory. Threshold quantity: 1Gi, available: 7. ",
	}.check(t)
}

func TestAMessageWithoutAnObservationNamesTheResource(t *testing.T) {
	met := []threshold.Threshold{{Signal: threshold.Memory}}
	got, _ := message(measuredPod("1Gi", "1Gi", "1Gi"), met, nil)
	if got != "The node was low on resource: memory. " {
		t.Errorf("%q", got)
	}
}
