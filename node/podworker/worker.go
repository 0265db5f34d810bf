// Package podworker makes pods real. For each pod that is worth a look it observes the node, has the plan
// decide, begins the steps and reports the status. Steps run beside the looks, so that a slow pull, hook or
// stop never holds up a look. When a step ends, or anything changes, the pod is put into the queue.
//
// A look is in look.go, what steps do in executor.go, start.go and stop.go, and the report in report.go.
package podworker

import (
	"context"
	"log/slog"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/trace"
	"github.com/trivet-node/trivet/node/admit"
	"github.com/trivet-node/trivet/node/allocation"
	"github.com/trivet-node/trivet/node/criconfig"
	"github.com/trivet-node/trivet/node/gate"
	"github.com/trivet-node/trivet/node/imagepull"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/podlog"
	"github.com/trivet-node/trivet/node/podtiming"
	"github.com/trivet-node/trivet/node/probe"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/runtime"
	"github.com/trivet-node/trivet/node/status"
	"github.com/trivet-node/trivet/node/volume"
)

// Pods is where the desired pods come from (podsource.Source).
type Pods interface {
	Get(uid types.UID) *v1.Pod
	List() []*v1.Pod
	// Saw takes the API's answer to a write, which may be newer than the watch.
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

// Volumes mounts what pods ask for (volume.Mounter).
type Volumes interface {
	Setup(ctx context.Context, pod *v1.Pod) (*volume.Volumes, error)
	Container(
		pod *v1.Pod,
		c *v1.Container,
		volumes *volume.Volumes,
		env []podenv.Variable,
	) ([]volume.Mount, []volume.Device, error)
	EnvFile(pod *v1.Pod, volume, path string) (map[string]string, error)
	Teardown(ctx context.Context, uid types.UID) error
}

// Cgroups makes and removes the pods' control groups.
type Cgroups interface {
	Ensure(ctx context.Context, pod *v1.Pod) error
	Parent(pod *v1.Pod) string
	Remove(ctx context.Context, uid types.UID) error
}

// Users gives pods their user namespaces (userns.Ranges).
type Users interface {
	// Of returns the users of a pod of a runtime handler, the same at every call until Release.
	Of(pod *v1.Pod, handler string) (criconfig.Users, error)
	Release(uid types.UID) error
}

// Resizer changes the resources of pods that run (resize.Resizer).
type Resizer interface {
	// Resize gives a pod, its sandbox and the instances of a step what is in the specification.
	Resize(ctx context.Context, pod *v1.Pod, s plan.Step) error
}

// Objects are what pods refer to (objects.Cache).
type Objects interface {
	podenv.Source
	Register(pod *v1.Pod)
	Unregister(uid types.UID)
}

// Events sends Events about pods (event.Recorder).
type Events interface {
	Pod(pod *v1.Pod, container, kind, reason, message string)
	// PodOnce sends an event of which the API keeps one for each pod and reason, however often it is sent.
	PodOnce(pod *v1.Pod, kind, reason, message string, annotations map[string]string)
}

// Meter counts what is done for pods (kubeletmetric.Pods). It is called by many goroutines, and must not
// block.
type Meter interface {
	Worked(round podtiming.Round)
	// SandboxStarted is called after each attempt to start a sandbox, ContainerStarted after that of a
	// container: with the reason of a failure, or none.
	SandboxStarted(pod *v1.Pod, handler string, took time.Duration, err error)
	ContainerStarted(pod *v1.Pod, name, reason string)
	// FirstStartFailed is called when a first instance could not be started, once for each sandbox.
	FirstStartFailed(pod *v1.Pod)
	// StatusShown is called when the API has taken a status in the place of another one.
	StatusShown(before, now *v1.PodStatus, took time.Duration, start podtiming.Start)
	Rejected(reason string)
	Preempted()
}

// unmetered counts nothing.
type unmetered struct{}

func (unmetered) Worked(podtiming.Round)                                             {}
func (unmetered) SandboxStarted(*v1.Pod, string, time.Duration, error)               {}
func (unmetered) ContainerStarted(*v1.Pod, string, string)                           {}
func (unmetered) FirstStartFailed(*v1.Pod)                                           {}
func (unmetered) StatusShown(_, _ *v1.PodStatus, _ time.Duration, _ podtiming.Start) {}
func (unmetered) Rejected(string)                                                    {}
func (unmetered) Preempted()                                                         {}

// Config is how the worker does its work.
type Config struct {
	Node    criconfig.Node
	Env     podenv.Node
	HostIPs []string

	// RuntimeName is the scheme of container IDs in the status.
	RuntimeName string

	// RootDir is kubelet's root directory, /var/lib/kubelet.
	RootDir string
	Logs    podlog.Logs

	// HostsFile is the node's /etc/hosts, for pods on its network.
	HostsFile  string
	MaxBackoff time.Duration
	Workers    int

	// KeepOld is how many instances that have ended are kept of each container, beside the newest; less
	// than one is one.
	KeepOld int

	// Starts is how many sandboxes, and how many containers, are started at the same time.
	Starts int

	// HostDNS is the node's resolver configuration as it is now; nil: it has none.
	HostDNS func() (criconfig.DNS, error)

	// Handlers are the runtime's, with what each supports.
	Handlers func() []v1.NodeRuntimeHandler

	// Admit decides about a pod that is new on the node; others are the pods that count. Nil: all are
	// admitted.
	Admit func(pod *v1.Pod, others []*v1.Pod) admit.Verdict

	// ResizePods means that resources of a pod as a whole can be changed while it runs (feature gate
	// InPlacePodLevelResourcesVerticalScaling).
	ResizePods bool

	// Refresh gets the newest labels of the node: a pod may have been bound because of one that is not known
	// yet.
	Refresh func(ctx context.Context)
}

// Deps is what a Worker works with.
type Deps struct {
	Queue   *queue.Queue
	Pods    Pods
	API     API
	Runtime *runtime.Client
	Images  *imagepull.Puller
	Volumes Volumes
	Cgroups Cgroups
	Users   Users
	Objects Objects
	Probes  *probe.Prober
	Events  Events

	// Allocations are what the pods have been given, and Resizer puts it in force.
	Allocations *allocation.Ledger
	Resizer     Resizer

	// Traces makes the spans of pods' starts and ends; nil: none.
	Traces *trace.Provider

	// Meter and ResizeMeter may be nil.
	Meter       Meter
	ResizeMeter gate.Meter
	Log         *slog.Logger
}

// Worker works on all pods of the node.
type Worker struct {
	cfg  Config
	deps Deps

	gate     *gate.Gate
	mirrors  *mirrors
	names    names
	endings  *endings
	resizes  *gate.Resizes
	executor *executor
	reporter *reporter

	// steps are those of all pods that run, reports included.
	steps sync.WaitGroup

	// mu guards known. A pod's lock is never taken while it is held.
	mu    sync.Mutex
	known map[types.UID]*pod
}

// New returns a worker. Nothing happens before Run.
func New(cfg Config, d Deps) *Worker {
	if d.Meter == nil {
		d.Meter = unmetered{}
	}

	w := &Worker{cfg: cfg, deps: d, known: map[types.UID]*pod{}}
	w.gate = gate.New(cfg.Admit, d.Allocations, func(uid types.UID) { d.Queue.Look(uid, queue.Preempted) })
	w.resizes = gate.NewResizes(gate.ResizeConfig{
		Gate:        w.gate,
		Allocations: d.Allocations,
		Pods:        d.Pods,
		Queue:       d.Queue,
		Events:      d.Events,
		Meter:       d.ResizeMeter,
		Able:        allocation.Able{OfPods: cfg.ResizePods, Swap: cfg.Node.Swap},
		Log:         d.Log,
	})
	w.endings = &endings{
		rootDir:   cfg.RootDir,
		events:    d.Events,
		log:       d.Log,
		evictions: map[types.UID]bool{},
	}

	w.executor = newExecutor(cfg, d)

	w.mirrors = &mirrors{
		pods:     d.Pods,
		api:      d.API,
		queue:    d.Queue,
		log:      d.Log,
		steps:    &w.steps,
		deleting: map[types.UID]bool{},
	}

	w.reporter = &reporter{
		pods:   d.Pods,
		api:    d.API,
		queue:  d.Queue,
		events: d.Events,
		meter:  d.Meter,
		log:    d.Log,
		steps:  &w.steps,
		node:   status.Node{IPs: cfg.HostIPs, Runtime: cfg.RuntimeName, PodResources: cfg.ResizePods},
	}

	return w
}

// Run looks at the pods of the queue until ctx ends, and returns when all steps and probes have ended.
// Containers are left as they are.
func (w *Worker) Run(ctx context.Context) {
	w.deps.Queue.Run(ctx, w.cfg.Workers, func(ctx context.Context, uid types.UID, why queue.Reasons) {
		if err := w.look(ctx, uid, why); err != nil && ctx.Err() == nil {
			w.deps.Log.Warn("look at pod", "uid", uid, "why", why, "err", err)
			w.deps.Queue.LookAfter(uid, lookRetry, queue.Retry)
		}
	})

	w.steps.Wait()
	w.deps.Probes.Close()
}

// lookRetry is how long after a look that failed a pod is looked at again.
const lookRetry = time.Second

// Knows reports whether the worker still has to do with a pod, its teardown included.
func (w *Worker) Knows(uid types.UID) bool { return w.find(uid) != nil }

// Look is called by the runtime's watch.
func (w *Worker) Look(uid string) { w.deps.Queue.Look(types.UID(uid), queue.ContainerChanged) }

// Listed is called after each list of the runtime: pods that only the runtime knows are looked at, too.
func (w *Worker) Listed(pods map[runtime.Pod]string) {
	for p := range pods {
		if uid := types.UID(p.UID); w.deps.Pods.Get(uid) == nil {
			w.deps.Queue.Look(uid, queue.OnlyInRuntime)
		}
	}
}

// find returns what is known of a pod, nil if nothing is.
func (w *Worker) find(uid types.UID) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known[uid]
}

// pod returns what is known of a pod, or begins to know it.
func (w *Worker) pod(uid types.UID) *pod {
	w.mu.Lock()
	defer w.mu.Unlock()

	p := w.known[uid]
	if p == nil {
		p = newPod(uid, w.cfg.MaxBackoff)
		p.plan.KeepOld(w.cfg.KeepOld)
		w.known[uid] = p
	}

	return p
}

// forget drops a pod of which nothing is left, and lets another static pod have its name.
func (w *Worker) forget(uid types.UID) {
	w.mu.Lock()
	delete(w.known, uid)
	w.mu.Unlock()

	w.resizes.Forget(uid)
	w.deps.Objects.Unregister(uid)
	w.freeName(uid)
}
