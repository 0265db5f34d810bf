// Package probe runs the startup, liveness and readiness probes of containers, by exec, HTTP, TCP or gRPC,
// with kubelet's meaning of delays, periods and thresholds. A probe that waits for its next turn costs a
// timer and no goroutine; the number of commands that are started at the same time is bounded.
package probe

import (
	"context"
	"net"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/slots"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/queue"
)

// Exec runs a command in a container; code is its exit code (runtime.Client).
type Exec interface {
	ExecSync(
		ctx context.Context,
		id string,
		command []string,
		timeout time.Duration,
	) (output []byte, code int32, err error)
}

// Queue takes the pods whose health has changed (queue.Queue).
type Queue interface {
	Look(uid types.UID, why queue.Reason)
}

// Events sends Events about pods (event.Recorder).
type Events interface {
	Pod(pod *v1.Pod, container, kind, reason, message string)
}

// dialer makes the connections of TCP and gRPC probes, as net.Dialer does.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

// Instance is a running container to be probed.
type Instance struct {
	ID      string
	Spec    *v1.Container
	Started time.Time

	// What the API showed of this very instance when the agent started: readiness does not flap because an
	// agent was restarted.
	WasStarted bool
	WasReady   bool
}

// Prober probes the running containers of the node. All methods may be called at the same time.
type Prober struct {
	exec   Exec
	queue  Queue
	events Events
	// results counts them for metrics.
	results *Results
	dial    dialer
	starts  *slots.Slots

	// mu guards what follows, and all that pods lead to.
	mu     sync.Mutex
	pods   map[types.UID]map[string]*target
	closed bool
}

// maxStarts bounds the commands that are started at the same time. One that takes longer than startLimit runs
// beside them: the probes of other pods do not wait for a command that hangs.
const (
	maxStarts  = 32
	startLimit = time.Second
)

// New returns a prober that probes nothing yet.
func New(exec Exec, queue Queue, events Events, results *Results) *Prober {
	return &Prober{
		exec:    exec,
		queue:   queue,
		events:  events,
		results: results,
		dial:    (&net.Dialer{}).DialContext,
		starts:  slots.New(maxStarts, startLimit),
		pods:    map[types.UID]map[string]*target{},
	}
}

// target is one container instance, with its probes and what they found.
type target struct {
	Instance
	pod    *v1.Pod
	ip     string
	health plan.Health
	probes map[kind]*runner

	// cancel ends the probes that are running.
	cancel context.CancelFunc
}

type kind string

const (
	startup   kind = plan.FailedStartup
	liveness  kind = plan.FailedLiveness
	readiness kind = "Readiness"
)

// Sync begins the probes of the given running instances of a pod, ends those of all others, and returns what
// is known of each instance, by container ID. ip is the pod's address, for probes that name no host. After
// Close it returns nil.
func (p *Prober) Sync(pod *v1.Pod, ip string, instances []Instance) map[string]plan.Health {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.closed {
		return nil
	}

	targets := p.pods[pod.UID]
	if targets == nil {
		targets = map[string]*target{}
		p.pods[pod.UID] = targets
	}

	health := make(map[string]plan.Health, len(instances))
	for _, i := range instances {
		t := targets[i.ID]
		if t == nil {
			t = p.begin(i)
			targets[i.ID] = t
		}

		t.pod, t.ip = pod, ip
		health[i.ID] = t.health
	}

	for id, t := range targets {
		if _, wanted := health[id]; !wanted {
			t.end()
			delete(targets, id)
		}
	}

	if len(targets) == 0 {
		delete(p.pods, pod.UID)
	}

	return health
}

// StopLiveness ends the probes that could restart containers of a pod that must end. Its readiness is still
// probed.
func (p *Prober) StopLiveness(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()

	for _, t := range p.pods[uid] {
		for _, k := range []kind{startup, liveness} {
			if r := t.probes[k]; r != nil {
				r.timer.Stop()
				delete(t.probes, k)
			}
		}
	}
}

// Close ends all probes, and lets Sync begin no new ones. Those that run are cancelled, not waited for.
func (p *Prober) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.closed = true
	for _, targets := range p.pods {
		for _, t := range targets {
			t.end()
		}
	}

	clear(p.pods)
}

// begin begins the probes of an instance. The caller holds the lock, as in add and addRest.
func (p *Prober) begin(i Instance) *target {
	ctx, cancel := context.WithCancel(context.Background())
	i.Started = steady(i.Started)
	t := &target{
		Instance: i,
		probes:   map[kind]*runner{},
		cancel:   cancel,
		health: plan.Health{
			Started: i.Spec.StartupProbe == nil || i.WasStarted,
			Ready:   i.Spec.ReadinessProbe == nil || i.WasReady,
		},
	}
	if t.health.Started {
		p.addRest(ctx, t)
	} else {
		p.add(ctx, t, startup, i.Spec.StartupProbe)
	}

	return t
}

// steady returns the time of a start, which the runtime tells by the clock, so that it does not depend on the
// clock any more. Nothing has started later than now: a clock that was set back since is wrong by hours.
func steady(started time.Time) time.Time {
	now := time.Now()
	return now.Add(min(started.Sub(now), 0))
}

// addRest begins the probes that wait for the startup probe.
func (p *Prober) addRest(ctx context.Context, t *target) {
	p.add(ctx, t, liveness, t.Spec.LivenessProbe)
	p.add(ctx, t, readiness, t.Spec.ReadinessProbe)
}

// add begins a probe, if the container has it. ctx ends with the target.
func (p *Prober) add(ctx context.Context, t *target, k kind, spec *v1.Probe) {
	if spec == nil {
		return
	}

	r := &runner{kind: k, spec: spec}
	t.probes[k] = r
	first := t.Started.Add(r.delay())
	r.timer = time.AfterFunc(max(time.Until(first), 0), func() { p.run(ctx, t, r) })
}

// end ends the probes of an instance, those that run included.
func (t *target) end() {
	t.cancel()
	for _, r := range t.probes {
		r.timer.Stop()
	}
}
