package podworker_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podsource"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
	"github.com/trivet-node/trivet/node/volume"
)

// cluster is an API server that holds the pods of one node, and all else that a worker needs, in memory.
type cluster struct {
	t       *testing.T
	admit   func(pod *v1.Pod, others []*v1.Pod) admit.Verdict // nil: all pods are let in
	refresh func(context.Context)

	// changedObject tells the worker that something which the pod refers to is another.
	changedObject func(types.UID)

	mu        sync.Mutex // guards pods, events, changed
	pods      map[types.UID]*v1.Pod
	events    []string
	changed   chan struct{} // closed and made anew at every change
	synced    chan struct{}
	enqueue   func(types.UID)
	objects   error // of reads of ConfigMaps
	secrets   map[string]*v1.Secret
	mounts    []volume.Mount // of every container
	handlers  []v1.NodeRuntimeHandler
	down      []types.UID
	forgotten []types.UID
	setups    int
	renewal   time.Duration    // how long volumes are good; 0: forever
	patches   int              // begun
	cut       chan struct{}    // patches hang until it is closed; nil: they do not
	host      podworker.Config // what the node's files say, if anything
	late      *v1.Pod          // comes with the list, when somebody asks whether that is there
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		t:       t,
		pods:    map[types.UID]*v1.Pod{},
		changed: make(chan struct{}),
		synced:  make(chan struct{}),
		enqueue: func(types.UID) {},
	}
	close(c.synced)
	return c
}

// changes wakes everyone who waits. The caller holds the lock.
func (c *cluster) changes() { close(c.changed); c.changed = make(chan struct{}) }

func (c *cluster) Get(uid types.UID) *v1.Pod { c.mu.Lock(); defer c.mu.Unlock(); return c.pods[uid] }
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
	c.enqueue(p.UID)
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
	c.enqueue(pod.UID)
	return nil
}

func (c *cluster) Handler(context.Context, string) (string, error) { return "", nil }

func (c *cluster) Setup(_ context.Context, pod *v1.Pod) (*volume.Volumes, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.setups++
	c.changes()
	out := &volume.Volumes{ByName: map[string]volume.Mounted{}}
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
func (c *cluster) Refresh(types.UID) time.Time {
	if c.renewal == 0 {
		return time.Time{}
	}
	return time.Now().Add(c.renewal)
}
func (c *cluster) Teardown(_ context.Context, uid types.UID) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down = append(c.down, uid)
	return nil
}

type cgroups struct{}

func (cgroups) Ensure(context.Context, *v1.Pod) error   { return nil }
func (cgroups) Parent(*v1.Pod) string                   { return "/kubepods" }
func (cgroups) Remove(context.Context, types.UID) error { return nil }
func (c *cluster) Register(*v1.Pod)                     {}
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
func (c *cluster) Pod(pod *v1.Pod, container, kind, reason, message string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.events = append(c.events, strings.TrimSpace(reason+" "+container))
	c.changes()
}

// waitForEvent waits until something was told of a container: "Pulled app".
func (c *cluster) waitForEvent(uid types.UID, event string) {
	c.t.Helper()
	c.waitFor(uid, event, func(*v1.Pod) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return slices.Contains(c.events, event)
	})
}

// waitFor waits, without polling, until the pod is as wanted; a pod that is gone is nil.
func (c *cluster) waitFor(uid types.UID, what string, ok func(*v1.Pod) bool) *v1.Pod {
	c.t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		c.mu.Lock()
		p, next := c.pods[uid], c.changed
		c.mu.Unlock()
		if ok(p) {
			return p
		}

		select {
		case <-next:
		case <-deadline:
			text, _ := json.MarshalIndent(p, "", " ")
			c.t.Fatalf("never %s: %s", what, text)
		}
	}
}

const (
	lookers      = 2
	startsAtOnce = 4
)

// start runs a worker (an agent's life) until the returned function is called, or the test ends.
func (c *cluster) start(s *runtimetest.Server, root string) (stop func()) {
	c.t.Helper()
	conn, err := socket.Dial(s.Socket)
	if err != nil {
		c.t.Fatal(err)
	}

	log := slog.New(slog.DiscardHandler)
	access, err := imageaccess.Open(imageaccess.Config{RootDir: root, Log: log})
	if err != nil {
		c.t.Fatal(err)
	}

	rt := runtime.New(conn, conn, log)
	var w *podworker.Worker
	probes := probe.New(
		rt,
		func(uid types.UID) { w.Enqueue(uid) },
		func(pod *v1.Pod, container, reason, text string) { c.Pod(pod, container, "", reason, text) },
	)

	w = podworker.New(podworker.Config{
		Node:        criconfig.Node{LogRoot: root + "/logs"},
		RootDir:     root,
		Links:       root,
		RuntimeName: "fake",
		Handlers:    c.runtimeHandlers,
		HostIPs:     []string{"192.0.2.1"},
		HostDNS:     c.host.HostDNS,
		PullSecrets: c.host.PullSecrets,
		Workers:     lookers,
		Starts:      startsAtOnce,
		Admit:       c.admit,
		Refresh:     c.refresh,
	}, podworker.Deps{
		Pods:    c,
		API:     c,
		Runtime: rt,
		Volumes: c,
		Cgroups: cgroups{},
		Objects: c,
		Probes:  probes,
		Events:  c,
		Access:  access,
		Log:     log,
	})

	c.mu.Lock()
	c.enqueue, c.changedObject = w.Enqueue, w.ObjectChanged
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var parts sync.WaitGroup
	parts.Go(func() { w.Run(ctx) })
	parts.Go(func() { _ = rt.Watch(ctx, w) })
	for _, p := range c.List() {
		w.Enqueue(p.UID)
	}

	var once sync.Once
	stop = func() {
		once.Do(func() { cancel(); parts.Wait(); probes.Close(); conn.Close() })
	}
	c.t.Cleanup(stop)
	return stop
}

func newPod(policy v1.RestartPolicy, containers ...v1.Container) *v1.Pod {
	p := &v1.Pod{ObjectMeta: metav1.ObjectMeta{
		UID:        "uid-1",
		Name:       "web",
		Namespace:  "shop",
		Generation: 1,
	},
		Spec: v1.PodSpec{
			RestartPolicy:                 policy,
			Containers:                    containers,
			TerminationGracePeriodSeconds: new(int64(30)),
		}}

	p.Status.Phase = v1.PodPending
	return p
}

func ready(p *v1.Pod) bool {
	return p != nil &&
		slices.ContainsFunc(
			p.Status.Conditions,
			func(c v1.PodCondition) bool { return c.Type == v1.PodReady && c.Status == v1.ConditionTrue },
		)
}

func (c *cluster) remove(uid types.UID, grace int64) {
	c.mu.Lock()
	p := c.pods[uid].DeepCopy()
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{
		Time: time.Now().Add(time.Duration(grace) * time.Second),
	}, &grace
	c.mu.Unlock()
	c.put(p)
}

func gone(p *v1.Pod) bool { return p == nil }

// empty waits until the runtime has nothing left. It has no way to tell.
func (c *cluster) empty(s *runtimetest.Server) {
	c.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for len(s.Left()) > 0 && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
	}
	if left := s.Left(); len(left) > 0 {
		c.t.Errorf("left in the runtime: %v", left)
	}
}
