package probe

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/queue"
)

// runner is one probe of one instance. All of it but kind and spec is guarded by the prober's mutex.
type runner struct {
	kind  kind
	spec  *v1.Probe
	timer *time.Timer

	// turn is when the turn that is not over began; zero between turns.
	turn time.Time

	// pause is the time before the next try of a connection that was refused.
	pause     time.Duration
	successes int32
	failures  int32

	// unknown means that the last probe could not run.
	unknown bool
}

func (r *runner) delay() time.Duration {
	return time.Duration(r.spec.InitialDelaySeconds) * time.Second
}

func (r *runner) period() time.Duration {
	return time.Duration(orDefault(r.spec.PeriodSeconds, 10)) * time.Second
}

// orDefault returns v, or the API's default d where v is not set.
func orDefault(v, d int32) int32 {
	if v > 0 {
		return v
	}
	return d
}

// run probes once. The answer counts and the timer is set for the next turn, unless the turn goes on: see
// retryRefused.
func (p *Prober) run(ctx context.Context, t *target, r *runner) {
	// Only commands start processes.
	started := func() {}
	if r.spec.Exec != nil {
		var err error
		if started, err = p.starts.Take(ctx); err != nil {
			return
		}
	}

	// The pod and its address may change between turns, so the check has a copy of what they are now.
	p.mu.Lock()
	if r.turn.IsZero() {
		r.turn = time.Now()
	}

	c := check{
		dial:      p.dial,
		exec:      p.exec,
		probe:     r.spec,
		container: t.Spec,
		id:        t.ID,
		ip:        t.ip,
	}

	pod := t.pod
	p.mu.Unlock()

	start := time.Now()
	err := c.run(ctx)
	took := time.Since(start)
	started()
	if ctx.Err() != nil || p.retryRefused(t, r, err) {
		return
	}

	p.results.add(pod, t.Spec.Name, r.kind, resultOf(err), took)
	if errors.Is(err, errUnknown) {
		p.recordUnknown(t, r, pod, err)
	} else {
		p.record(ctx, t, r, pod, err)
	}

	// A probe that was ended meanwhile, or has failed for good, has no next turn.
	p.mu.Lock()
	defer p.mu.Unlock()

	if t.probes[r.kind] == r && ctx.Err() == nil && t.health.Unhealthy == "" {
		next := r.turn.Add(r.period())
		r.timer.Reset(max(time.Until(next), time.Millisecond))
	}

	r.turn = time.Time{}
}

// resultOf names the result of a probe. A warning is a success.
func resultOf(err error) string {
	if _, ok := errors.AsType[*warning](err); ok || err == nil {
		return successful
	}
	if errors.Is(err, errUnknown) {
		return unknown
	}
	return failed
}

// firstPause is how long a program gets to open its port before it is tried again. The time doubles with each
// try.
const firstPause = 10 * time.Millisecond

// retryRefused prolongs the turn of a probe whose connection was refused by a container in its first period:
// programs need some milliseconds to open their port, and to wait for a whole period after that would be most
// of the time that their pod takes to be ready. The program did not see the connection, and the refusal
// counts, once, when the period is over. Liveness gains nothing by it.
func (p *Prober) retryRefused(t *target, r *runner, err error) bool {
	if !errors.Is(err, syscall.ECONNREFUSED) || r.kind == liveness {
		return false
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	end := t.Started.Add(r.delay() + r.period())
	if time.Now().After(end) || t.probes[r.kind] != r {
		return false
	}

	r.pause = max(2*r.pause, firstPause)
	r.timer.Reset(min(r.pause, time.Until(end)+time.Millisecond))
	return true
}

// recordUnknown records a probe that could not run. The second in a row is reported to users: the first may
// only mean that the container has just ended.
func (p *Prober) recordUnknown(t *target, r *runner, pod *v1.Pod, err error) {
	p.mu.Lock()
	again := r.unknown
	r.unknown = true
	p.mu.Unlock()

	if again {
		message := fmt.Sprintf("%s probe errored and resulted in unknown state: %v", r.kind, err)
		p.events.Pod(pod, t.Spec.Name, v1.EventTypeWarning, "Unhealthy", message)
	}
}

// record counts an answer of a probe that is still wanted; a nil error is healthy. When a threshold is
// reached, that changes the health, and the pod is looked at.
func (p *Prober) record(ctx context.Context, t *target, r *runner, pod *v1.Pod, err error) {
	if w, ok := errors.AsType[*warning](err); ok {
		message := fmt.Sprintf("%s probe warning: %s", r.kind, w.text)
		p.events.Pod(pod, t.Spec.Name, v1.EventTypeWarning, "ProbeWarning", message)
		err = nil
	}

	p.mu.Lock()
	r.unknown = false
	if t.probes[r.kind] != r {
		p.mu.Unlock()
		return
	}

	before := t.health
	if r.count(err == nil) {
		if err == nil {
			p.succeed(ctx, t, r)
		} else {
			t.fail(r)
		}
	}

	changed := t.health != before
	p.mu.Unlock()

	if err != nil {
		message := fmt.Sprintf("%s probe failed: %v", r.kind, err)
		p.events.Pod(pod, t.Spec.Name, v1.EventTypeWarning, "Unhealthy", message)
	}

	if changed {
		p.queue.Look(pod.UID, queue.ProbeResult)
	}
}

// count counts a success or failure in a row and reports whether its threshold is reached.
func (r *runner) count(success bool) bool {
	if success {
		r.successes++
		r.failures = 0
		return r.successes >= orDefault(r.spec.SuccessThreshold, 1)
	}

	r.successes = 0
	r.failures++
	return r.failures >= orDefault(r.spec.FailureThreshold, 3)
}

// succeed takes a probe's success. The caller holds the lock, as in fail.
func (p *Prober) succeed(ctx context.Context, t *target, r *runner) {
	switch r.kind {
	case startup:
		if !t.health.Started {
			t.health.Started = true
			delete(t.probes, startup)
			p.addRest(ctx, t)
		}
	case readiness:
		t.health.Ready = true
	}
}

// fail takes a probe's failure.
func (t *target) fail(r *runner) {
	switch r.kind {
	case startup, liveness:
		t.health.Unhealthy = string(r.kind)
		t.health.Grace = r.spec.TerminationGracePeriodSeconds
	case readiness:
		t.health.Ready = false
	}
}
