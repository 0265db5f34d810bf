// Package probe asks containers how they are: startup, liveness and readiness probes by exec, HTTP, TCP or
// gRPC, with kubelet's meaning of delays, periods and thresholds. A probe that waits for its next turn costs
// a timer, no goroutine; how many ask at once is bounded.
package probe

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
)

// Exec runs a command in a container; code is its exit code.
type Exec interface {
	ExecSync(
		ctx context.Context,
		id string,
		command []string,
		timeout time.Duration,
	) (output []byte, code int32, err error)
}

// Instance is a running container to be probed.
type Instance struct {
	ID      string
	Spec    *v1.Container
	Started time.Time
	// What the API showed of this very instance when the agent started: readiness does not flap because an
	// agent was restarted.
	WasStarted, WasReady bool
}

// Manager probes the running containers of the node.
type Manager struct {
	exec Exec
	// the health of a container of the pod has changed
	notify func(types.UID)
	event  func(pod *v1.Pod, container, reason, text string) // a warning about a pod
	slots  chan struct{}

	mu   sync.Mutex // guards pods and all below it
	pods map[types.UID]map[string]*target
	down bool
}

// maxAtOnce bounds the probes that run at the same time: exec probes start processes.
const maxAtOnce = 32

// New returns a manager that probes nothing yet.
func New(
	exec Exec,
	notify func(types.UID),
	event func(pod *v1.Pod, container, reason, text string),
) *Manager {
	return &Manager{
		exec:   exec,
		notify: notify,
		event:  event,
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
	ctx    context.Context // ends with the target; not a request's
	cancel context.CancelFunc
}

type kind string

const (
	startup   kind = "Startup"
	liveness  kind = "Liveness"
	readiness kind = "Readiness"
)

// Sync makes the probes of a pod those of the given running instances.
func (m *Manager) Sync(pod *v1.Pod, ip string, instances []Instance) {
	m.mu.Lock()
	defer m.mu.Unlock()

	if m.down {
		return
	}

	targets := m.pods[pod.UID]
	if targets == nil {
		targets = map[string]*target{}
		m.pods[pod.UID] = targets
	}

	keep := map[string]bool{}
	for _, i := range instances {
		keep[i.ID] = true
		if t := targets[i.ID]; t != nil {
			t.pod, t.ip = pod, ip
			continue
		}

		targets[i.ID] = m.begin(pod, ip, i)
	}

	for id, t := range targets {
		if !keep[id] {
			t.end()
			delete(targets, id)
		}
	}

	if len(targets) == 0 {
		delete(m.pods, pod.UID)
	}
}

// StopLiveness ends the probes that could restart containers of a pod that is going away. Its readiness is
// still asked.
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

// Health returns what is known of each instance of the pod, by container ID.
func (m *Manager) Health(uid types.UID) map[string]plan.Health {
	m.mu.Lock()
	defer m.mu.Unlock()
	out := map[string]plan.Health{}
	for id, t := range m.pods[uid] {
		out[id] = t.health
	}
	return out
}

// Close ends all probes.
func (m *Manager) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	for _, targets := range m.pods {
		for _, t := range targets {
			t.end()
		}
	}
	m.pods = map[types.UID]map[string]*target{}
}

func (m *Manager) begin(pod *v1.Pod, ip string, i Instance) *target {
	t := &target{
		Instance: i,
		pod:      pod,
		ip:       ip,
		probes:   map[kind]*runner{},
	}

	t.ctx, t.cancel = context.WithCancel(context.Background())
	t.health = plan.Health{
		Started: i.Spec.StartupProbe == nil || i.WasStarted,
		Ready:   i.Spec.ReadinessProbe == nil || i.WasReady,
	}
	if !t.health.Started {
		m.add(t, startup, i.Spec.StartupProbe)
		return t
	}

	m.addRest(t)
	return t
}

// addRest begins the probes that wait for the startup probe.
func (m *Manager) addRest(t *target) {
	m.add(t, liveness, t.Spec.LivenessProbe)
	m.add(t, readiness, t.Spec.ReadinessProbe)
}

func (m *Manager) add(t *target, k kind, spec *v1.Probe) {
	if spec == nil {
		return
	}
	r := &runner{kind: k, spec: spec}
	t.probes[k] = r
	r.timer = time.AfterFunc(max(time.Until(t.Started.Add(r.delay())), 0), func() { m.fire(t, r) })
}

func (t *target) end() {
	t.cancel()
	for _, r := range t.probes {
		r.timer.Stop()
	}
}

// runner is one probe of one instance. All of it but kind and spec is guarded by the manager's mutex.
type runner struct {
	kind      kind
	spec      *v1.Probe
	timer     *time.Timer
	turn      time.Time     // when the turn began that is not over; zero between turns
	pause     time.Duration // before the next knock
	successes int32
	failures  int32
	unknown   bool // the last answer said nothing
}

// fire asks once. When that ends the probe's turn, the answer counts and the timer is set for the next one.
func (m *Manager) fire(t *target, r *runner) {
	select {
	case m.slots <- struct{}{}:
	case <-t.ctx.Done():
		return
	}

	m.mu.Lock()
	if r.turn.IsZero() {
		r.turn = time.Now()
	}

	pod, ip := t.pod, t.ip
	m.mu.Unlock()
	err := ask(t.ctx, m.exec, r.spec, pod, t.Spec, t.ID, ip)
	<-m.slots
	if t.ctx.Err() != nil || m.knockAgain(t, r, err) {
		return
	}

	unknown := errors.Is(err, errUnknown)
	if !unknown {
		m.record(t, r, pod, err)
	}

	m.mu.Lock()
	again := unknown && r.unknown
	r.unknown = unknown
	m.mu.Unlock()

	// not only because the container has just ended
	if again {
		m.event(
			pod,
			t.Spec.Name,
			"Unhealthy",
			fmt.Sprintf("%s probe errored and resulted in unknown state: %v", r.kind, err),
		)
	}

	m.mu.Lock()
	defer m.mu.Unlock()

	if t.probes[r.kind] == r && t.ctx.Err() == nil && t.health.Unhealthy == "" {
		r.timer.Reset(max(time.Until(r.turn.Add(r.period())), time.Millisecond))
	}

	r.turn = time.Time{}
}

// firstPause is how long a program gets to open its port before it is looked for again; then twice that, and
// so on.
const firstPause = 10 * time.Millisecond

// knockAgain prolongs the turn of a probe whose connection was refused by a container in its first period:
// programs need some milliseconds to open their port, and to wait for a whole period after that would be most
// of the time that their pod takes to be ready. Nobody saw the question, and the refusal counts, once, when
// the period is over. Liveness gains nothing by it.
func (m *Manager) knockAgain(t *target, r *runner, err error) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	end := t.Started.Add(r.delay() + r.period())
	if !errors.Is(err, syscall.ECONNREFUSED) || r.kind == liveness || time.Now().After(end) ||
		t.probes[r.kind] != r {
		return false
	}
	r.pause = max(2*r.pause, firstPause)
	r.timer.Reset(min(r.pause, time.Until(end)+time.Millisecond))
	return true
}

func (r *runner) delay() time.Duration {
	return time.Duration(r.spec.InitialDelaySeconds) * time.Second
}

func (r *runner) period() time.Duration {
	return time.Duration(orDefault(r.spec.PeriodSeconds, 10)) * time.Second
}

func orDefault(v, d int32) int32 {
	if v > 0 {
		return v
	}
	return d
}

// record counts an answer of a probe that is still wanted and, when a threshold is reached, changes the
// health.
func (m *Manager) record(t *target, r *runner, pod *v1.Pod, err error) {
	if w, ok := errors.AsType[*warning](err); ok {
		m.event(pod, t.Spec.Name, "ProbeWarning", fmt.Sprintf("%s probe warning: %s", r.kind, w.text))
		err = nil
	}

	m.mu.Lock()
	if t.probes[r.kind] != r {
		m.mu.Unlock()
		return
	}

	before := t.health
	if err == nil {
		r.successes, r.failures = r.successes+1, 0
		if r.successes >= orDefault(r.spec.SuccessThreshold, 1) {
			m.succeed(t, r)
		}
	} else {
		r.successes, r.failures = 0, r.failures+1
		if r.failures >= orDefault(r.spec.FailureThreshold, 3) {
			t.fail(r)
		}
	}

	changed := t.health != before
	m.mu.Unlock()
	if err != nil {
		m.event(pod, t.Spec.Name, "Unhealthy", fmt.Sprintf("%s probe failed: %v", r.kind, err))
	}
	if changed {
		m.notify(pod.UID)
	}
}

func (m *Manager) succeed(t *target, r *runner) {
	switch r.kind {
	case startup:
		if !t.health.Started {
			t.health.Started = true
			delete(t.probes, startup)
			m.addRest(t)
		}
	case readiness:
		t.health.Ready = true
	}
}

func (t *target) fail(r *runner) {
	switch r.kind {
	case startup, liveness:
		t.health.Unhealthy = string(r.kind)
		t.health.Grace = r.spec.TerminationGracePeriodSeconds
	case readiness:
		t.health.Ready = false
	}
}
