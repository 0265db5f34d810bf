package podworker_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/volume"
)

// cluster is an API server that holds the pods of one node, and all else that a worker needs, in memory.
type cluster struct {
	t *testing.T

	// admit and refresh are the worker's; nil admits all pods.
	admit   func(pod *v1.Pod, others []*v1.Pod) admit.Verdict
	refresh func(context.Context)

	// host has what the node's files say, and secretsOf its own pull secrets; nil: it has none.
	host      podworker.Config
	secretsOf func() ([]byte, error)

	// mu guards what follows.
	mu sync.Mutex

	// worker is the one that runs, or ran last.
	worker *podworker.Worker

	// changed is closed and replaced at every change of pods and events.
	changed chan struct{}

	// pods are those of the API, by UID. queue hears of their changes; nil while no worker runs.
	pods  map[types.UID]*v1.Pod
	queue *queue.Queue

	// synced is closed when the API has listed all pods, late among them.
	synced chan struct{}
	late   *v1.Pod

	// patches counts those that have begun. They hang until cut is closed, unless it is nil.
	patches int
	cut     chan struct{}

	// events are those that were sent, as "REASON CONTAINER". once counts those that the API keeps once, by
	// pod and reason.
	events []string
	once   map[string]int

	// secrets are those of the API, by NAMESPACE/NAME. objects is the error of Setup and of reads of
	// ConfigMaps.
	secrets map[string]*v1.Secret
	objects error

	// setups counts the calls of Setup. The volumes are good for renewal, or with 0 forever.
	setups  int
	renewal time.Duration

	// mounts are those of every container, handlers what the runtime supports.
	mounts   []volume.Mount
	handlers []v1.NodeRuntimeHandler

	// down are the pods that were torn down, forgotten those whose objects are no longer watched.
	down      []types.UID
	forgotten []types.UID

	// occupied is how often a control group cannot be removed.
	occupied int
}

func (c *cluster) occupy(times int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.occupied = times
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t:       t,
		pods:    map[types.UID]*v1.Pod{},
		changed: make(chan struct{}),
		once:    map[string]int{},
		synced:  make(chan struct{}),
	}
	close(c.synced)
	return c
}

// changes wakes everyone who waits. The caller holds the lock.
func (c *cluster) changes() {
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *cluster) Get(uid types.UID) *v1.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.pods[uid]
}

func (c *cluster) List() (out []*v1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.pods {
		out = append(out, p)
	}
	return out
}

func (c *cluster) Saw(*v1.Pod) {}
func (c *cluster) Settled(source string) bool {
	c.mu.Lock()
	if late := c.late; late != nil {
		c.pods[late.UID], c.late = late, nil
		close(c.synced)
	}

	c.mu.Unlock()
	select {
	case <-c.synced:
		return true
	default:
		return source != podsource.SourceAPI
	}
}

func (c *cluster) MirrorOf(static *v1.Pod) (*v1.Pod, bool) {
	return nil, c.Settled(podsource.SourceAPI)
}

func (c *cluster) Shows(*v1.Pod) bool { return true }

func (c *cluster) put(p *v1.Pod) {
	c.mu.Lock()
	c.pods[p.UID] = p
	c.changes()
	c.mu.Unlock()
	c.look(p.UID, queue.PodChanged)
}

// look asks for a look at a pod, if anybody looks.
func (c *cluster) look(uid types.UID, why queue.Reason) {
	c.mu.Lock()
	q := c.queue
	c.mu.Unlock()
	if q != nil {
		q.Look(uid, why)
	}
}

func (c *cluster) PatchStatus(ctx context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error) {
	c.mu.Lock()
	cut := c.cut
	c.patches++
	c.changes()
	c.mu.Unlock()
	if cut != nil {
		select {
		case <-cut:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}

	c.mu.Lock()
	defer c.mu.Unlock()

	old := c.pods[pod.UID]
	if old == nil {
		return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, pod.Name)
	}

	before, err := json.Marshal(old)
	if err != nil {
		return nil, err
	}

	after, err := strategicpatch.StrategicMergePatch(before, patch, v1.Pod{})
	if err != nil {
		return nil, err
	}

	out := &v1.Pod{}
	if err := json.Unmarshal(after, out); err != nil {
		return nil, err
	}

	c.pods[pod.UID] = out
	c.changes()
	return out, nil
}

func (c *cluster) Delete(_ context.Context, pod *v1.Pod) error {
	c.mu.Lock()
	delete(c.pods, pod.UID)
	c.changes()
	c.mu.Unlock()
	c.look(pod.UID, queue.PodChanged)
	return nil
}

func (c *cluster) Handler(context.Context, string) (string, error) { return "", nil }

func (c *cluster) Setup(_ context.Context, pod *v1.Pod) (*volume.Volumes, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.setups++
	c.changes()
	out := &volume.Volumes{ByName: map[string]volume.Mounted{}}
	if c.renewal != 0 {
		out.SetUpAgain = time.Now().Add(c.renewal)
	}

	for _, container := range pod.Spec.EphemeralContainers {
		for _, m := range container.VolumeMounts {
			out.ByName[m.Name] = volume.Mounted{}
		}
	}

	return out, c.objects
}

func (c *cluster) Container(
	*v1.Pod,
	*v1.Container,
	*volume.Volumes,
	[]podenv.Variable,
) ([]volume.Mount, []volume.Device, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.mounts), nil, nil
}

// mount has every container mount these from now on, on a runtime with these handlers.
func (c *cluster) mount(mounts []volume.Mount, handlers []v1.NodeRuntimeHandler) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mounts, c.handlers = mounts, handlers
}

func (c *cluster) runtimeHandlers() []v1.NodeRuntimeHandler {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.handlers
}

func (c *cluster) EnvFile(*v1.Pod, string, string) (map[string]string, error) { return nil, nil }
func (c *cluster) Teardown(_ context.Context, uid types.UID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = append(c.down, uid)
	return nil
}

// cgroups makes no control groups.
type cgroups struct{ *cluster }

func (cgroups) Ensure(context.Context, *v1.Pod) error    { return nil }
func (cgroups) Narrow(context.Context, *v1.Pod) error    { return nil }
func (cgroups) Parent(*v1.Pod) string                    { return "/kubepods" }
func (cgroups) Widen(context.Context, *v1.Pod) error     { return nil }
func (cgroups) Memory(*v1.Pod) (podcgroup.Memory, error) { return podcgroup.Memory{Limit: -1}, nil }

// Remove fails as often as occupied says.
func (g cgroups) Remove(_ context.Context, uid types.UID) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.occupied == 0 {
		return nil
	}

	g.occupied--
	if slices.Contains(g.down, uid) {
		g.t.Error("the directory of a pod goes before the last of its processes")
	}

	return errors.New("a process does not end")
}

func (c *cluster) Register(*v1.Pod) {}

func (c *cluster) Unregister(uid types.UID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.forgotten = append(c.forgotten, uid)
	c.changes()
}

func (c *cluster) ConfigMap(context.Context, string, string) (*v1.ConfigMap, error) {
	return nil, c.objects
}

func (c *cluster) Secret(_ context.Context, namespace, name string) (*v1.Secret, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.secrets[namespace+"/"+name]; s != nil {
		return s, nil
	}
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "secrets"}, name)
}

func (c *cluster) Services(ctx context.Context, _ string, wait bool) ([]*v1.Service, error) {
	if wait {
		select {
		case <-c.synced:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return nil, nil
}

// PodOnce keeps one event for each pod and reason, as the API does; sent counts how often it was sent.
func (c *cluster) PodOnce(pod *v1.Pod, kind, reason, message string, annotations map[string]string) {
	c.mu.Lock()
	key := string(pod.UID) + " " + reason
	known := c.once[key] > 0
	c.once[key]++
	c.mu.Unlock()

	if !known {
		c.Pod(pod, "", kind, reason, message)
	}
}

func (c *cluster) Pod(pod *v1.Pod, container, kind, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, strings.TrimSpace(reason+" "+container))
	c.changes()
}
