package stats

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	statsapi "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	counters "github.com/trivet-node/trivet/internal/cgroup/usage"
	"github.com/trivet-node/trivet/node/csivolume"
	"github.com/trivet-node/trivet/node/localstorage"
	"github.com/trivet-node/trivet/node/machine"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/usage"
)

var (
	// made is when pods and containers were made, and at when groups were read.
	made = time.Unix(1_000_000, 0)
	at   = made.Add(10 * time.Second)
)

// fake is the runtime, the meter and the storage of a node with two pods: web has a container that runs, and
// one that has just ended; quiet has none.
type fake struct {
	failed bool
	said   []csivolume.VolumeStats
	images string // directory of the file system of images
	asked  []usage.Depth
}

func group(path string) *usage.Group {
	reading := counters.Reading{
		Time:        at,
		CPU:         2 * time.Second,
		Memory:      5000,
		WorkingSet:  4096,
		RSS:         3000,
		Swap:        10,
		MemoryLimit: 9000,
		SwapLimit:   new(uint64(50)),
		Stalls:      &counters.Stalls{IO: counters.Pressure{Some: counters.Stall{Total: time.Millisecond}}},
	}

	return &usage.Group{
		Path:      path,
		Reading:   reading,
		NanoCores: 2e8,
		Processes: &usage.Processes{Count: 3},
	}
}

func (f *fake) Take(_ context.Context, depth usage.Depth) (*usage.Snapshot, error) {
	f.asked = append(f.asked, depth)
	s := &usage.Snapshot{
		Depth:      depth,
		Time:       at,
		Boot:       made,
		Node:       group("/"),
		Interfaces: []usage.Interface{{Name: "ens3"}},
		Tiers:      []*usage.Group{group("/kubepods")},
		Daemons:    map[string]*usage.Group{"kubelet": group("/k"), "runtime": group("/r")},
	}
	if f.failed {
		s.Err = errors.New("no pods")
		return s, nil
	}

	s.Pods = []usage.Pod{
		{Pod: runtime.Pod{UID: "v", Namespace: "bar", Name: "quiet"}, Created: made},
		{
			Pod:     runtime.Pod{UID: "u", Namespace: "shop", Name: "web"},
			Created: made,
			Group:   group("/kubepods/podu"),
			Interfaces: []usage.Interface{
				{Name: "net1"},
				{Name: "eth0", Received: usage.Traffic{Bytes: 10}, Sent: usage.Traffic{Bytes: 20}},
			},
			Containers: []usage.Container{
				{ID: "id-app", Name: "app", Created: made, Group: group("/kubepods/podu/id-app")},
				{ID: "id-ended", Name: "ended", Created: made},
			},
		},
	}

	return s, nil
}

func (f *fake) Usage(context.Context) (map[types.UID]localstorage.Pod, error) {
	if f.failed {
		return nil, errors.New("no sizes")
	}

	use := func(n uint64) localstorage.Usage { return localstorage.Usage{Bytes: n, Inodes: 1, Time: at} }
	return map[types.UID]localstorage.Pod{"u": {
		Containers: map[string]localstorage.Container{"app": {Layer: use(7), Logs: use(20)}},
		Volumes: map[string]localstorage.Volume{
			"cache": {Usage: use(300)},
			"shm":   {Usage: use(4000), Memory: true},
		},
	}}, nil
}

func (f *fake) VolumeStats(context.Context) ([]csivolume.VolumeStats, error) {
	if f.failed {
		return nil, errors.New("no drivers")
	}
	return f.said, nil
}

func (f *fake) Containers(context.Context, runtime.Selection) ([]runtime.Container, error) {
	if f.failed {
		return nil, errors.New("no list")
	}
	return []runtime.Container{{State: plan.Running}, {State: plan.Exited}}, nil
}

func (f *fake) Sandboxes(context.Context, runtime.Selection) ([]runtime.Sandbox, error) {
	if f.failed {
		return nil, errors.New("no list")
	}
	return make([]runtime.Sandbox, 2), nil
}

func (f *fake) ImageFS(context.Context) (string, *statsapi.FsStats, error) {
	if f.failed {
		return "", nil, errors.New("no images")
	}
	return f.images, &statsapi.FsStats{UsedBytes: new(uint64(99)), InodesUsed: new(uint64(9))}, nil
}

// collect returns a collector of a machine whose /proc was recorded.
func collect(t *testing.T, f *fake) *Collector {
	t.Helper()
	root, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}

	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Namespace: "shop", Name: "web"}}
	return New(Config{
		NodeName: "n",
		Root:     t.TempDir(),
		Meter:    f,
		Storage:  f,
		Drivers:  f,
		Runtime:  f,
		Pods:     func() []*v1.Pod { return []*v1.Pod{pod} },
		Machine:  machine.Machine{Root: root},
	})
}
