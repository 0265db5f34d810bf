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

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// fake is a runtime with a pod whose init container has ended, whose application runs, and whose second
// container is so young that it has no figures. The pod's sandbox has been replaced. A second pod has nothing
// but a sandbox.
type fake struct {
	cpu    uint64 // nanoseconds that the application and its pod have used
	at     time.Time
	failed bool
	images string // directory of the file system of images
}

var made = time.Unix(1_000_000, 0)

func (f *fake) Stats(context.Context) ([]runtime.PodStats, error) {
	if f.failed {
		return nil, errors.New("no statistics")
	}

	web := runtime.Pod{UID: "u", Namespace: "shop", Name: "web"}
	return []runtime.PodStats{
		{Pod: web, Attempt: 0},
		{
			Pod:       web,
			Attempt:   1,
			CPU:       f.used(),
			Memory:    &statsapi.MemoryStats{WorkingSetBytes: new(uint64(8192))},
			Processes: new(uint64(3)),
			Network: &statsapi.NetworkStats{InterfaceStats: statsapi.InterfaceStats{
				Name:    "eth0",
				RxBytes: new(uint64(10)),
				TxBytes: new(uint64(20)),
			}},
			Containers: []runtime.ContainerStats{
				{ID: "id-init", Name: "init"},
				{
					ID:   "id-app",
					Name: "app",
					CPU:  f.used(),
					Memory: &statsapi.MemoryStats{
						WorkingSetBytes: new(uint64(4096)),
						UsageBytes:      new(uint64(5000)),
						RSSBytes:        new(uint64(3000)),
					},
					Rootfs: &statsapi.FsStats{UsedBytes: new(uint64(7))},
				},
				{ID: "id-young", Name: "young"},
			},
		},
		{Pod: runtime.Pod{UID: "v", Namespace: "bar", Name: "quiet"}},
	}, nil
}

func (f *fake) used() *statsapi.CPUStats {
	return &statsapi.CPUStats{Time: metav1.NewTime(f.at), UsageCoreNanoSeconds: new(f.cpu)}
}

func (f *fake) Containers(_ context.Context, which runtime.Selection) ([]runtime.Container, error) {
	if f.failed {
		return nil, errors.New("no list")
	}
	running := []runtime.Container{
		{ID: "id-app", State: plan.Running, Created: made},
		{ID: "id-young", State: plan.Running, Created: made},
	}
	if which.Running {
		return running, nil
	}
	return append(running, runtime.Container{ID: "id-init", State: plan.Exited, Created: made}), nil
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

// newFake is a runtime whose application has used two seconds of CPU.
func newFake() *fake { return &fake{cpu: 2e9, at: made} }

// collect returns a collector of a machine whose /proc was recorded.
func collect(t *testing.T, rt Runtime) *Collector {
	t.Helper()
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: types.UID("u"), Namespace: "shop", Name: "web"}}
	pod.Status.StartTime = new(metav1.NewTime(made))
	c := New(Config{
		NodeName: "n",
		Root:     t.TempDir(),
		Runtime:  rt,
		Pods:     func() []*v1.Pod { return []*v1.Pod{pod} },
	})

	root, err := filepath.Abs("testdata")
	if err != nil {
		t.Fatal(err)
	}

	c.root = root
	return c
}
