// Package podworker makes pods real: for each pod that is worth a look it observes the runtime, asks plan
// what to do, begins those steps and reports the status. A pod is looked at by one worker at a time; steps
// that take long run beside, so a slow pull, hook or stop never holds up a look. Whatever ends, fails or
// changes only enqueues the pod's UID.
package podworker

import (
	"context"
	"log/slog"
	"maps"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"

	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/gate"
	"github.com/trivet-node/trivet/node/imageaccess"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/volume"
)

// Pods is where the desired pods come from (podsource.Source).
type Pods interface {
	Get(uid types.UID) *v1.Pod
	List() []*v1.Pod
	Saw(pod *v1.Pod)
	// Settled reports whether all pods of a source are known.
	Settled(source string) bool
	// MirrorOf is what the API has in the place of a static pod's mirror.
	MirrorOf(static *v1.Pod) (mirror *v1.Pod, known bool)
	// Shows reports whether a mirror has something to show.
	Shows(mirror *v1.Pod) bool
}

// API is what the worker writes to the API server.
type API interface {
	// PatchStatus sends a strategic merge patch and returns the pod as it is then.
	PatchStatus(ctx context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error)
	// Delete removes the object at once, if it still has this UID. A pod that is gone is a success.
	Delete(ctx context.Context, pod *v1.Pod) error
	// Handler is the runtime handler of a RuntimeClass.
	Handler(ctx context.Context, class string) (string, error)
}

// Volumes mounts what pods ask for (volume.Manager).
type Volumes interface {
	Setup(ctx context.Context, pod *v1.Pod) (*volume.Volumes, error)
	Container(
		pod *v1.Pod,
		c *v1.Container,
		volumes *volume.Volumes,
		env []podenv.Variable,
	) ([]volume.Mount, []volume.Device, error)
	EnvFile(pod *v1.Pod, volume, path string) (map[string]string, error)
	Refresh(pod types.UID) time.Time
	Teardown(ctx context.Context, uid types.UID) error
}

// Cgroups makes and removes the pods' control groups.
type Cgroups interface {
	Ensure(ctx context.Context, pod *v1.Pod) error
	Parent(pod *v1.Pod) string
	Remove(ctx context.Context, uid types.UID) error
}

// Objects are what pods refer to.
type Objects interface {
	podenv.Source
	Register(pod *v1.Pod)
	Unregister(uid types.UID)
}

// Events tells users.
type Events interface {
	Pod(pod *v1.Pod, container, kind, reason, message string)
}

// Config is how the worker does its work.
type Config struct {
	Node        criconfig.Node
	Env         podenv.Node
	HostIPs     []string
	RuntimeName string // scheme of container IDs
	RootDir     string // /var/lib/kubelet
	Links       string // /var/log/containers
	HostsFile   string // the node's /etc/hosts, for pods on its network
	MaxBackoff  time.Duration
	// HostDNS is the node's resolver configuration as it is now; nil: it has none.
	HostDNS func() (criconfig.DNS, error)
	// PullSecrets is the node's own docker configuration as it is now; nil: it has none.
	PullSecrets  func() ([]byte, error)
	ParallelPull int // pulls at once; 0: no limit
	Workers      int
	Starts       int // sandboxes and containers being started at once
	// Handlers are the runtime's, with what each supports.
	Handlers func() []v1.NodeRuntimeHandler
	// Admit decides about a pod that is new on the node; others are the pods that count.
	Admit func(pod *v1.Pod, others []*v1.Pod) admit.Verdict
	// Refresh gets the newest labels of the node: a pod may have been bound because of one that is not
	// known yet.
	Refresh func(ctx context.Context)
}

// Worker works on all pods of the node.
type Worker struct {
	Config
	pods    Pods
	api     API
	runtime *runtime.Client
	volumes Volumes
	cgroups Cgroups
	objects Objects
	probes  *probe.Manager
	events  Events
	access  *imageaccess.Access
	log     *slog.Logger

	queue     workqueue.TypedDelayingInterface[types.UID]
	sandboxes chan struct{} // slots: sandboxes being made
	// slots: containers being started; apart, so that a burst finishes its first pods first
	starts chan struct{}
	pulls  chan struct{}         // slots, nil: no limit
	images keylock.Locks[string] // by name: being pulled
	steps  sync.WaitGroup
	gate   *gate.Gate

	mu       sync.Mutex // guards what follows; never held while a pod's lock is taken
	known    map[types.UID]*pod
	deleting map[types.UID]bool   // mirrors
	holders  map[string]types.UID // by full name: the static pod that runs under it
}

// Deps is what a Worker works with.
type Deps struct {
	Pods    Pods
	API     API
	Runtime *runtime.Client
	Volumes Volumes
	Cgroups Cgroups
	Objects Objects
	Probes  *probe.Manager
	Events  Events
	Access  *imageaccess.Access // who may use which image
	Log     *slog.Logger
}

// New returns a worker; nothing happens before Run.
func New(cfg Config, d Deps) *Worker {
	w := &Worker{
		Config:    cfg,
		pods:      d.Pods,
		api:       d.API,
		runtime:   d.Runtime,
		volumes:   d.Volumes,
		cgroups:   d.Cgroups,
		objects:   d.Objects,
		probes:    d.Probes,
		events:    d.Events,
		access:    d.Access,
		log:       d.Log,
		known:     map[types.UID]*pod{},
		deleting:  map[types.UID]bool{},
		holders:   map[string]types.UID{},
		queue:     workqueue.NewTypedDelayingQueue[types.UID](),
		sandboxes: make(chan struct{}, max(cfg.Starts, 1)),
		starts:    make(chan struct{}, max(cfg.Starts, 1)),
	}

	w.gate = gate.New(cfg.Admit, w.Enqueue)
	if cfg.ParallelPull > 0 {
		w.pulls = make(chan struct{}, cfg.ParallelPull)
	}

	return w
}

// Enqueue asks for a look at a pod. It never blocks.
func (w *Worker) Enqueue(uid types.UID) { w.queue.Add(uid) }

// Run works until ctx ends; then it returns when all steps have ended. Containers are left as they are.
func (w *Worker) Run(ctx context.Context) {
	var workers sync.WaitGroup
	for range max(w.Workers, 1) {
		workers.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	workers.Wait()
	w.steps.Wait()
}

func (w *Worker) next(ctx context.Context) bool {
	uid, down := w.queue.Get()
	if down {
		return false
	}
	defer w.queue.Done(uid)

	if ctx.Err() != nil {
		return true
	}

	if err := w.look(ctx, uid); err != nil && ctx.Err() == nil {
		w.log.Warn("look at pod", "pod", uid, "err", err)
		w.queue.AddAfter(uid, time.Second)
	}

	return true
}

// pod is what the worker remembers of one pod. Looks at it never overlap; steps that end do overlap with
// looks.
type pod struct {
	uid types.UID

	mu         sync.Mutex // guards what follows
	spec       *v1.Pod    // newest version seen, kept when the API has none any more
	memory     plan.Memory
	root       context.Context // of all steps: ends with the agent
	starting   context.Context // of steps that bring the pod up; ends when it must go down
	giveUp     context.CancelFunc
	stopping   context.Context // of Stop steps; ends when the grace was shortened
	hurry      context.CancelFunc
	grace      *int64 // deletionGracePeriodSeconds that the Stop steps know
	admitted   bool
	shown      time.Time        // when a change of the status that can wait was first seen
	unreported bool             // a look has left its status to the one after the patch in flight
	images     map[string]image // by container name, for its next start
	volumes    *volume.Volumes
	changes    int       // how often what the volumes show has changed
	prepared   int       // changes when the last prepare began
	refresh    time.Time // when volumes must be set up again; zero: never
	wasHealth  map[string]v1.ContainerStatus
}

type image struct {
	name string // as the spec calls it
	ref  string
	user criconfig.User
}

func (w *Worker) pod(ctx context.Context, uid types.UID) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()

	p := w.known[uid]
	if p == nil {
		p = &pod{
			uid:    uid,
			root:   ctx,
			images: map[string]image{},
			memory: plan.Memory{
				InFlight: map[string]bool{},
				Failures: map[string]plan.Failure{},
				Backoffs: map[string]plan.Backoff{},
				Stopped:  map[string]bool{},
			},
		}

		p.starting, p.giveUp = context.WithCancel(ctx)
		p.stopping, p.hurry = context.WithCancel(ctx)
		w.known[uid] = p
	}

	return p
}

// Knows reports whether the worker still has to do with a pod, its teardown included.
func (w *Worker) Knows(uid types.UID) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[uid] != nil
}

func (w *Worker) forget(uid types.UID) {
	w.mu.Lock()
	p := w.known[uid]
	delete(w.known, uid)
	w.mu.Unlock()
	w.gate.Forget(uid)
	if p != nil {
		p.giveUp()
		p.hurry()
	}
	w.objects.Unregister(uid)
	w.release(uid)
}

// snapshot copies the memory for a decision.
func (p *pod) snapshot() plan.Memory {
	m := p.memory
	m.Failures, m.Backoffs, m.Stopped = maps.Clone(m.Failures), maps.Clone(m.Backoffs), maps.Clone(m.Stopped)
	m.Images = map[string]string{}
	for container, img := range p.images {
		m.Images[container] = img.name
	}
	return m
}

// inFlight are the keys of a pod's steps that are being done.
func (w *Worker) inFlight(uid types.UID) map[string]bool {
	w.mu.Lock()
	p := w.known[uid]
	w.mu.Unlock()
	if p == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return maps.Clone(p.memory.InFlight)
}

// ObjectChanged says that a ConfigMap or Secret that the pod refers to has appeared, changed or gone: what
// waited for it is tried at once.
func (w *Worker) ObjectChanged(uid types.UID) {
	w.mu.Lock()
	p := w.known[uid]
	w.mu.Unlock()
	if p != nil {
		p.mu.Lock()

		// brings what is mounted up to date
		p.stale()
		clear(p.memory.Failures)
		p.mu.Unlock()
	}

	w.Enqueue(uid)
}

// stale says that the volumes show something old: they are set up again, also if that is being done right
// now. The caller holds the lock.
func (p *pod) stale() {
	p.changes++
	p.memory.Prepared = false
}

// refreshAt has the volumes set up again at a time, to renew tokens or to see whether a claim has grown.
func (w *Worker) refreshAt(p *pod, at time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()

	// the look that follows each step sees to it
	p.refresh = at
}

// Look is called by the runtime's watch.
func (w *Worker) Look(uid string) { w.Enqueue(types.UID(uid)) }

// Listed is called after each list of the runtime: pods that only the runtime knows are looked at, too.
func (w *Worker) Listed(pods map[runtime.Pod]string) {
	for p := range pods {
		if w.pods.Get(types.UID(p.UID)) == nil {
			w.Enqueue(types.UID(p.UID))
		}
	}
}
