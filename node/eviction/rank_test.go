package eviction

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/threshold"
)

// spec is a pod in a table: what it asks for, its priority, and what it uses.
type spec struct {
	name     string
	priority int32
	memory   string // requested
	storage  string // requested
	used     *Usage
}

// pod is the pod of a row, with one container of its name.
func (s spec) pod() *v1.Pod {
	requests := v1.ResourceList{}
	if s.memory != "" {
		requests[v1.ResourceMemory] = resource.MustParse(s.memory)
	}
	if s.storage != "" {
		requests[v1.ResourceEphemeralStorage] = resource.MustParse(s.storage)
	}

	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: types.UID(s.name), Name: s.name, Namespace: "n"},
		Spec: v1.PodSpec{
			Priority: &s.priority,
			Containers: []v1.Container{{
				Name:      s.name,
				Resources: v1.ResourceRequirements{Requests: requests},
			}},
		},
	}
}

func uses(memory int64) *Usage { return &Usage{Memory: memory} }

// stores is a pod with a writable layer, logs and volumes of so many bytes, each of as many inodes.
func stores(layer, logs, volumes int64) *Usage {
	return &Usage{
		Containers: map[string]ContainerUsage{
			"c": {Layer: &Disk{layer, layer}, Logs: &Disk{logs, logs}},
		},
		Volumes: Disk{volumes, volumes},
	}
}

func order(signal string, layout Layout, specs []spec) (names []string) {
	var pods []*v1.Pod
	usage := usages{}
	for _, s := range specs {
		pods = append(pods, s.pod())
		if s.used != nil {
			usage[types.UID(s.name)] = *s.used
		}
	}

	for _, c := range rank(signal, layout, pods, usage) {
		names = append(names, c.pod.Name)
	}

	return names
}

// The order is kubelet's: usage above requests, then priority, then how much above them.
func TestPodsAreEvictedForMemoryInTheOrderOfKubelet(t *testing.T) {
	const Mi = 1 << 20
	specs := []spec{
		{name: "high-below", priority: 10, memory: "200Mi", used: uses(100 * Mi)},
		{name: "low-below", priority: 1, memory: "200Mi", used: uses(199 * Mi)},
		{name: "low-below-less", priority: 1, memory: "200Mi", used: uses(10 * Mi)},
		{name: "high-above", priority: 10, memory: "50Mi", used: uses(500 * Mi)},
		{name: "low-above", priority: 1, memory: "100Mi", used: uses(101 * Mi)},
		{name: "low-above-more", priority: 1, memory: "100Mi", used: uses(300 * Mi)},
		{name: "low-best-effort", priority: 1, used: uses(400 * Mi)},
		{name: "exactly", priority: 1, memory: "100Mi", used: uses(100 * Mi)},
		{name: "high-unmeasured", priority: 10, memory: "100Mi"},
	}

	want := []string{
		"high-unmeasured",
		"low-best-effort", "low-above-more", "low-above", "high-above",
		"exactly", "low-below", "low-below-less", "high-below",
	}
	for _, signal := range []string{threshold.Memory, threshold.AllocatableMemory} {
		if got := order(signal, Layout{}, specs); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", signal, got, want)
		}
	}
}

func TestPodsAreEvictedForDiskByWhatTheyHaveOnThatFileSystem(t *testing.T) {
	specs := []spec{
		{name: "layer", used: stores(300, 0, 0)},
		{name: "logs", used: stores(0, 200, 0)},
		{name: "volumes", used: stores(0, 0, 100)},
		{name: "asked", storage: "1Ki", used: stores(400, 400, 200)},
		{name: "important", priority: 5, used: stores(900, 900, 900)},
	}

	for _, c := range []struct {
		signal string
		layout Layout
		want   []string
	}{
		{threshold.NodeFS, Layout{}, []string{"layer", "logs", "volumes", "important", "asked"}},
		{
			threshold.NodeFS,
			Layout{Images: true},
			[]string{"logs", "volumes", "important", "layer", "asked"},
		},
		{
			threshold.ImageFS,
			Layout{Images: true},
			[]string{"layer", "important", "logs", "volumes", "asked"},
		},
		{
			threshold.ContainerFS,
			Layout{Images: true, Split: true},
			[]string{"layer", "logs", "volumes", "important", "asked"},
		},
	} {
		if got := order(c.signal, c.layout, specs); !slices.Equal(got, c.want) {
			t.Errorf("%s, %+v: %q, want %q", c.signal, c.layout, got, c.want)
		}
	}
}

// kubelet takes off the bytes of ephemeral-storage that a pod has asked for from its inodes, too.
func TestPodsAreEvictedForInodesByHowManyTheyHave(t *testing.T) {
	got := order(threshold.NodeFSInodes, Layout{}, []spec{
		{name: "few", used: stores(1, 1, 1)},
		{name: "many", used: stores(10, 10, 10)},
		{name: "asked", storage: "1Mi", used: stores(100, 100, 100)},
		{name: "none", used: stores(0, 0, 0)},
	})
	if want := []string{"many", "few", "asked", "none"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestPodsAreEvictedForProcessesByPriorityFirst(t *testing.T) {
	runs := func(n int64) *Usage { return &Usage{Processes: n} }
	got := order(threshold.PIDs, Layout{}, []spec{
		{name: "high-many", priority: 10, used: runs(1000)},
		{name: "low-few", priority: 1, used: runs(1)},
		{name: "low-many", priority: 1, used: runs(10)},
		{name: "low-unmeasured", priority: 1},
	})
	if want := []string{"low-unmeasured", "low-many", "low-few", "high-many"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestTheYoungestOfEqualsIsEvicted(t *testing.T) {
	old, young := spec{name: "old"}.pod(), spec{name: "young"}.pod()
	old.CreationTimestamp = metav1.NewTime(start)
	young.CreationTimestamp = metav1.NewTime(start.Add(time.Hour))
	got := rank(threshold.Memory, Layout{}, []*v1.Pod{old, young}, usages{})
	if got[0].pod != young {
		t.Error("the older one was first")
	}
}

func TestTheRequestOfAPodHasItsOverhead(t *testing.T) {
	p := spec{name: "p", memory: "100Mi"}.pod()
	p.Spec.Overhead = v1.ResourceList{v1.ResourceMemory: resource.MustParse("20Mi")}
	if got := request(p, v1.ResourceMemory); got != 120<<20 {
		t.Errorf("%d", got)
	}

	// As with kubelet: a pod that asks for nothing has asked for no overhead.
	p = spec{name: "p"}.pod()
	p.Spec.Overhead = v1.ResourceList{v1.ResourceMemory: resource.MustParse("20Mi")}
	if got := request(p, v1.ResourceMemory); got != 0 {
		t.Errorf("best effort: %d", got)
	}

	// What is asked for the pod as a whole counts in place of what its containers ask for.
	p = spec{name: "p", memory: "100Mi"}.pod()
	p.Spec.Resources = &v1.ResourceRequirements{
		Requests: v1.ResourceList{v1.ResourceMemory: resource.MustParse("300Mi")},
	}
	if got := request(p, v1.ResourceMemory); got != 300<<20 {
		t.Errorf("pod level: %d", got)
	}
}

func TestTheGraceIsThatOfKubelet(t *testing.T) {
	hard := thresholds(t, "memory.available<1")[0]
	soft := thresholds(t, "memory.available<1 soft 1m")[0]
	for _, c := range []struct {
		threshold threshold.Threshold
		limit     int64
		own       *int64
		want      int64
	}{
		{hard, 60, new(int64(30)), 1},
		{soft, 60, new(int64(30)), 30},
		{soft, 10, new(int64(30)), 10},
		{soft, 60, nil, 60},

		// evictionMaxPodGracePeriod is 0 unless it is set.
		{soft, 0, new(int64(30)), 1},
		{soft, -1, new(int64(30)), 1},
	} {
		p := &v1.Pod{Spec: v1.PodSpec{TerminationGracePeriodSeconds: c.own}}
		if got := graceOf(p, c.threshold, c.limit); got != c.want {
			t.Errorf("%+v: %d", c, got)
		}
	}
}
