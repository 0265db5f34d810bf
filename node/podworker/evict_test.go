package podworker_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/podworker"
	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// lowOnMemory is a hard eviction, as the node agent decides them.
func lowOnMemory() podworker.Eviction {
	const message = "The node was low on resource: memory. "
	return podworker.Eviction{
		Reason:      "Evicted",
		Message:     message,
		Disruption:  message,
		Annotations: map[string]string{"starved_resource": "memory"},
		Grace:       time.Second,
	}
}

// evicted reports whether a pod is shown as kubelet shows one that it has evicted.
func evicted(p *v1.Pod) bool {
	return failed(p) && p.Status.Reason == "Evicted" &&
		p.Status.Message == "The node was low on resource: memory. " &&
		slices.ContainsFunc(p.Status.Conditions, func(x v1.PodCondition) bool {
			return x.Type == v1.DisruptionTarget && x.Status == v1.ConditionTrue &&
				x.Reason == v1.PodReasonTerminationByKubelet && x.Message == p.Status.Message
		})
}

// started counts how often the runtime was asked to start a container.
func started(s *runtimetest.Server) (count int) {
	for _, call := range s.Calls() {
		if strings.HasPrefix(call, "StartContainer") {
			count++
		}
	}
	return count
}

// sent counts the events of a reason that the API has.
func (c *cluster) sent(reason string) (count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.events {
		if e == reason {
			count++
		}
	}
	return count
}

func TestAnEvictedPodFailsAndDoesNotRunAgain(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, containers("app")...)
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)

	if !c.worker.Evict(pod.UID, lowOnMemory()) || c.worker.Evict(pod.UID, lowOnMemory()) {
		t.Error("a pod is evicted once")
	}

	p := c.waitFor(pod.UID, "evicted", evicted)
	if end := status(p, "app").State.Terminated; end == nil || end.ExitCode != 143 {
		t.Errorf("container %+v", status(p, "app"))
	}
	if c.worker.Evict(pod.UID, lowOnMemory()) {
		t.Error("a pod that has ended was evicted")
	}

	if got := started(s); got != 1 {
		t.Errorf("started %d times", got)
	}
	if !slices.Contains(s.Calls(), "StopContainer app/0 2") {
		t.Errorf("calls %q", s.Calls())
	}

	// It is no longer waited for when it is down.
	for range retry.Every(t.Context(), time.Millisecond) {
		if left, err := c.worker.Evicting(); err == nil && len(left) == 0 {
			break
		}
	}

	// It goes when somebody deletes it.
	c.remove(pod.UID, 30)
	c.waitFor(pod.UID, "gone", gone)
	c.leavesNothing(pod.UID, s)
	if got := c.sent("Evicted"); got != 1 {
		t.Errorf("%d events", got)
	}
}

func TestAnEvictionIsCarriedThroughByTheNextAgent(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	s.Stubborn("app")
	root := t.TempDir()
	stop := c.start(s, root)
	pod := newPod(v1.RestartPolicyAlways, containers("app")...)
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)

	if !c.worker.Evict(pod.UID, lowOnMemory()) {
		t.Fatal("it was not evicted")
	}

	s.Await(t, "StopContainer app/0 2")
	stop()

	// Its container ends while no agent runs: without the decision it would be restarted.
	s.Exit("app", 143)
	c.start(s, root)
	if got, err := c.worker.Evicting(); err != nil || !slices.Equal(got, []types.UID{pod.UID}) {
		t.Errorf("evicting %q, %v", got, err)
	}

	c.waitFor(pod.UID, "evicted", evicted)
	if got := started(s); got != 1 {
		t.Errorf("started %d times", got)
	}
	if got := c.sent("Evicted"); got != 1 {
		t.Errorf("%d events", got)
	}
	if c.worker.Evict(pod.UID, lowOnMemory()) {
		t.Error("it was evicted twice")
	}
}

func TestAnEvictionIsTheSameWheneverTheAgentDies(t *testing.T) {
	t.Parallel()
	moments := []struct {
		name string
		is   func(c *cluster, s *runtimetest.Server) bool
	}{
		{"at once", func(*cluster, *runtimetest.Server) bool { return true }},
		{"the container is being stopped", func(_ *cluster, s *runtimetest.Server) bool {
			return s.Asked("StopContainer") > 0
		}},
		{"the sandbox is being stopped", func(_ *cluster, s *runtimetest.Server) bool {
			return s.Asked("StopPodSandbox") > 0
		}},
		{"the status is sent", func(c *cluster, _ *runtimetest.Server) bool {
			return evicted(c.Get("uid-1"))
		}},
	}

	for round := range 5 * len(moments) {
		moment := moments[round%len(moments)]
		s, c := runtimetest.Start(t), newCluster(t)
		root := t.TempDir()
		stop := c.start(s, root)
		pod := newPod(v1.RestartPolicyAlways, containers("app")...)
		c.put(pod)
		c.waitFor(pod.UID, "ready", ready)
		if !c.worker.Evict(pod.UID, lowOnMemory()) {
			t.Fatal("it was not evicted")
		}

		for range retry.Every(t.Context(), time.Millisecond) {
			if moment.is(c, s) {
				break
			}
		}

		stop()
		stop = c.start(s, root)
		c.waitFor(pod.UID, "evicted", evicted)
		if got := started(s); got != 1 || c.sent("Evicted") != 1 {
			t.Errorf("%s: started %d times, %d events", moment.name, got, c.sent("Evicted"))
		}

		stop()
	}
}

func TestCriticalAndUnknownPodsAreNotEvicted(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	critical := newPod(v1.RestartPolicyAlways, containers("app")...)
	critical.Spec.Priority = new(int32(2_000_000_000))
	c.put(critical)
	c.put(static("uid-static", "etcd"))
	c.waitFor(critical.UID, "ready", ready)
	s.Await(t, "StartContainer etcd/0")

	for _, uid := range []types.UID{critical.UID, "uid-static", "uid-unknown"} {
		if c.worker.Evict(uid, lowOnMemory()) {
			t.Errorf("%s was evicted", uid)
		}
	}
}

// A full disk may be what the pod is evicted for.
func TestAPodIsEvictedThoughTheDecisionCannotBeWritten(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	s.Stubborn("app")
	root := t.TempDir()
	pod := newPod(v1.RestartPolicyAlways, containers("app")...)
	inTheWay := filepath.Join(root, "pods", string(pod.UID), "ending.json", "full")
	if err := os.MkdirAll(inTheWay, 0o750); err != nil {
		t.Fatal(err)
	}

	c.start(s, root)
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	if !c.worker.Evict(pod.UID, lowOnMemory()) {
		t.Fatal("it was not evicted")
	}

	s.Await(t, "StopContainer app/0 2")
	if got, err := c.worker.Evicting(); err != nil || !slices.Equal(got, []types.UID{pod.UID}) {
		t.Errorf("evicting %q, %v", got, err)
	}

	s.Exit("app", 143)
	c.waitFor(pod.UID, "evicted", evicted)
}

// A record is the agent's own, but a disk may return anything after a crash.
func TestARecordThatCannotBeReadIsNoReasonToEnd(t *testing.T) {
	for _, text := range []string{"", "{", "{}", "null", "[]"} {
		s, c := runtimetest.Start(t), newCluster(t)
		root := t.TempDir()
		pod := newPod(v1.RestartPolicyAlways, containers("app")...)
		dir := filepath.Join(root, "pods", string(pod.UID))
		if err := os.MkdirAll(dir, 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ending.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		stop := c.start(s, root)
		c.put(pod)
		c.waitFor(pod.UID, "ready", ready)
		stop()
	}
}
