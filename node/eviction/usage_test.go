package eviction

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/runtime"
)

// figures are those that a runtime has.
type figures []runtime.PodStats

func (f figures) Stats(context.Context) ([]runtime.PodStats, error) {
	if f == nil {
		return nil, errors.New("no answer")
	}
	return f, nil
}

// shelf is what pods have on disk.
type shelf map[types.UID]localstorage.Pod

func (s shelf) Usage(context.Context) (map[types.UID]localstorage.Pod, error) {
	if s == nil {
		return nil, errors.New("cannot be read")
	}
	return s, nil
}

func workingSetOf(n uint64) *statsapi.MemoryStats { return &statsapi.MemoryStats{WorkingSetBytes: &n} }

// twoSandboxes is a pod whose sandbox was replaced, and another pod.
func twoSandboxes() figures {
	newest := runtime.PodStats{
		Pod:       runtime.Pod{UID: "u"},
		Attempt:   1,
		Memory:    workingSetOf(100),
		Processes: new(uint64(7)),
		Containers: []runtime.ContainerStats{
			{Name: "a", Memory: workingSetOf(60)},
			{Name: "b"},
		},
	}
	other := runtime.PodStats{
		Pod: runtime.Pod{UID: "v"},
		Containers: []runtime.ContainerStats{
			{Name: "a", Memory: workingSetOf(1)},
			{Name: "b", Memory: workingSetOf(2)},
		},
	}
	return figures{newest, {Pod: newest.Pod, Memory: workingSetOf(1000)}, other}
}

func TestAPodUsesWhatTheRuntimeSaysOfItsNewestSandbox(t *testing.T) {
	got, err := PodMeter{Runtime: twoSandboxes(), Storage: shelf(nil)}.Usage(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}

	want := map[types.UID]Usage{
		"u": {Memory: 100, Processes: 7, Containers: map[string]ContainerUsage{
			"a": {Memory: new(int64(60))},
			"b": {},
		}},

		// Without a figure of the whole pod its containers are added up.
		"v": {Memory: 3, Containers: map[string]ContainerUsage{
			"a": {Memory: new(int64(1))},
			"b": {Memory: new(int64(2))},
		}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestAPodUsesWhatItHasOnDisk(t *testing.T) {
	amount := func(bytes, inodes uint64) localstorage.Usage {
		return localstorage.Usage{Bytes: bytes, Inodes: inodes}
	}
	stored := shelf{
		"u": {
			Containers: map[string]localstorage.Container{
				"a":    {Layer: amount(50, 3), Logs: amount(10, 1)},
				"gone": {Logs: amount(99, 99)},
			},
			Volumes: map[string]localstorage.Volume{
				"on-disk":   {Usage: amount(7, 4)},
				"in-memory": {Usage: amount(1000, 1000), Memory: true},
			},
		},
		"unknown": {},
	}
	got, err := PodMeter{Runtime: twoSandboxes(), Storage: stored}.Usage(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}

	u := got["u"]
	if all := u.disk([]part{layers, logs, volumes}); all != (Disk{Bytes: 67, Inodes: 8}) {
		t.Errorf("%+v", all)
	}
	if len(got) != 2 {
		t.Errorf("pods %v", got)
	}
}

func TestPodsThatCannotBeMeasuredAreAnError(t *testing.T) {
	for _, m := range []PodMeter{
		{Runtime: figures(nil)},
		{Runtime: twoSandboxes(), Storage: shelf(nil)},
	} {
		if got, err := m.Usage(t.Context(), true); err == nil {
			t.Errorf("%+v", got)
		}
	}
}
