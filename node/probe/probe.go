// Package probe finds out how containers are: startup, liveness and readiness probes by exec, HTTP, TCP or
// gRPC, with kubelet's meaning of delays, periods and thresholds. A probe that waits for its next turn costs
// a timer and no goroutine; how many run at once is bounded.
package probe

import (
	"context"
	"net"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

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

// Events tells users (event.Recorder).
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
	WasStarted, WasReady bool
}

// Manager probes the running containers of the node. All methods may be called at the same time.
type Manager struct {
	exec   Exec
	queue  Queue
	events Events
	dial   dialer
	slots  chan struct{}

	mu     sync.Mutex // guards what follows, and all that pods lead to
	pods   map[types.UID]map[string]*target
	closed bool
}

// maxAtOnce bounds the probes that run at the same time: exec probes start processes.
const maxAtOnce = 32

// New returns a manager that probes nothing yet.
func New(exec Exec, queue Queue, events Events) *Manager {
	return &Manager{
		exec:   exec,
		queue:  queue,
		events: events,
		dial:   (&net.Dialer{}).DialContext,
		slots:  make(chan struct{}, maxAtOnce),
		pods:   map[types.UID]map[string]*target{},
	}
}

// target is one container instance.
type target struct {
	Instance
	pod    *v1.Pod
	ip     string
	health plan.Health
	probes map[kind]*runner
	cancel context.CancelFunc // of the probes that are running
}

type kind string

const (
	startup   kind = plan.FailedStartup
	liveness  kind = plan.FailedLiveness
	readiness kind = "Readiness"
)

// Sync makes the probes of a pod those of the given running instances, and returns what is known of each, by
// container ID. ip is the pod's address, for probes that name no host.
func (m *Manager) Sync(pod *v1.Pod, ip string, instances []Instance) map[string]plan.Health {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.closed {
		return nil
	}

	targets := m.pods[pod.UID]
	if targets == nil {
		targets = map[string]*target{}
		m.pods[pod.UID] = targets
	}

	health := make(map[string]plan.Health, len(instances))
	for _, i := range instances {
		t := targets[i.ID]
		if t == nil {
			t = m.begin(i)
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
		delete(m.pods, pod.UID)
	}

	return health
}

// StopLiveness ends the probes that could restart containers of a pod that is going away. Its readiness is
// still probed.
func (m *Manager) StopLiveness(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, t := range m.pods[uid] {
		for _, k := range []kind{startup, liveness} {
			if r := t.probes[k]; r != nil {
				r.timer.Stop()
				delete(t.probes, k)
			}
		}
	}
}

// Close ends all probes.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	for _, targets := range m.pods {
		for _, t := range targets {
			t.end()
		}
	}
	clear(m.pods)
}

// begin begins the probes of an instance. The caller holds the lock, as in add and addRest.
func (m *Manager) begin(i Instance) *target {
	ctx, cancel := context.WithCancel(context.Background())
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
		m.addRest(ctx, t)
	} else {
		m.add(ctx, t, startup, i.Spec.StartupProbe)
	}

	return t
}

// addRest begins the probes that wait for the startup probe.
func (m *Manager) addRest(ctx context.Context, t *target) {
	m.add(ctx, t, liveness, t.Spec.LivenessProbe)
	m.add(ctx, t, readiness, t.Spec.ReadinessProbe)
}

// add begins a probe, if the container has it. ctx ends with the target.
func (m *Manager) add(ctx context.Context, t *target, k kind, spec *v1.Probe) {
	if spec == nil {
		return
	}
	r := &runner{kind: k, spec: spec}
	t.probes[k] = r
	first := t.Started.Add(r.delay())
	r.timer = time.AfterFunc(max(time.Until(first), 0), func() { m.run(ctx, t, r) })
}

func (t *target) end() {
	t.cancel()
	for _, r := range t.probes {
		r.timer.Stop()
	}
}
