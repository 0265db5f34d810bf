package localstorage

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/diskusage"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/runtime"
)

// Runtime knows what containers have written (runtime.Client).
type Runtime interface {
	Stats(ctx context.Context) ([]runtime.PodStats, error)
	Containers(ctx context.Context, which runtime.Selection) ([]runtime.Container, error)
}

// Groups knows the control groups of pods (podcgroup.Tree).
type Groups interface {
	// CPUTime returns how much CPU time a pod's containers have used.
	CPUTime(pod *v1.Pod) (time.Duration, error)
}

// Config is what a Meter needs.
type Config struct {
	// Root is kubelet's root directory.
	Root string
	Logs podlog.Logs

	// Pods returns the pods of the node.
	Pods    func() []*v1.Pod
	Runtime Runtime
	Groups  Groups
	Log     *slog.Logger
}

// Meter measures what pods take of the disk. It may be used by many goroutines.
type Meter struct {
	cfg   Config
	trees *diskusage.Meter

	// mu guards known.
	mu    sync.Mutex
	known map[types.UID]known
}

// known is what the runtime has said of a pod, and when.
type known struct {
	// activity is that of the pod before the runtime was asked, and since is when it was seen first.
	activity int64
	since    time.Time

	// answered says that the runtime has said what is in layers.
	answered bool
	layers   map[string]Usage

	// logged is what the logs took when they were looked at last.
	logged logged
}

// New returns a Meter. It measures nothing until it is asked.
func New(cfg Config) *Meter {
	return &Meter{
		cfg:   cfg,
		trees: diskusage.New(cfg.Log),
		known: map[types.UID]known{},
	}
}

// Run waits for the end of ctx and ends what is being measured then.
func (m *Meter) Run(ctx context.Context) {
	<-ctx.Done()
	m.trees.Close()
}

// patience is how long a Meter waits in all for trees that are being counted. Figures of those that take
// longer are of an earlier count, or say that there is more.
const patience = 2 * time.Second

// Usage returns what the pods of the node take. A pod that has no container has no figures of containers.
func (m *Meter) Usage(ctx context.Context) (map[types.UID]Pod, error) {
	return m.measure(ctx, m.cfg.Pods())
}

// measure returns what some pods take. The container runtime is asked only if one of them has run since.
func (m *Meter) measure(ctx context.Context, pods []*v1.Pod) (map[types.UID]Pod, error) {
	m.forget()
	activities := make(map[types.UID]int64, len(pods))
	for _, pod := range pods {
		activities[pod.UID] = m.activity(pod)
	}

	if err := m.ask(ctx, activities); err != nil {
		return nil, err
	}

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	out := make(map[types.UID]Pod, len(pods))
	for _, pod := range pods {
		out[pod.UID] = m.pod(ctx, pod, activities[pod.UID])
	}

	return out, nil
}

// activity changes whenever the processes of a pod run.
func (m *Meter) activity(pod *v1.Pod) int64 {
	used, err := m.cfg.Groups.CPUTime(pod)
	if err != nil {
		return diskusage.Unknown
	}
	return int64(used)
}

// pod measures one pod.
func (m *Meter) pod(ctx context.Context, pod *v1.Pod, activity int64) Pod {
	layers := m.layers(pod.UID)
	logs := m.logs(pod, layers, activity)
	out := Pod{
		Containers: make(map[string]Container, len(layers)),
		Volumes:    m.volumes(ctx, pod, activity),
		Rest:       logs.rest,
	}
	for name, layer := range layers {
		out.Containers[name] = Container{Layer: layer, Logs: logs.containers[name]}
	}
	return out
}

// forget drops what is known of pods that are gone.
func (m *Meter) forget() {
	there := map[string]bool{}
	for _, pod := range m.cfg.Pods() {
		there[string(pod.UID)] = true
	}

	m.trees.Keep(func(name string) bool {
		uid, _, _ := strings.Cut(name, "/")
		return there[uid]
	})

	m.mu.Lock()
	defer m.mu.Unlock()

	for uid := range m.known {
		if !there[string(uid)] {
			delete(m.known, uid)
		}
	}
}

// treeName names a volume's tree.
func treeName(uid types.UID, volume string) string { return fmt.Sprintf("%s/%s", uid, volume) }
