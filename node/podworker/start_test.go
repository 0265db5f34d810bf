package podworker_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

func TestHooksThatWaitForAnotherPodDoNotKeepItFromStarting(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	hook := &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 3600}}}
	for i := range 2 * startsAtOnce {
		pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: fmt.Sprint("hooked", i), Image: "run", Lifecycle: hook})
		pod.UID = types.UID(fmt.Sprint("hooked", i))
		c.put(pod)
		c.waitForEvent(pod.UID, fmt.Sprint("Started hooked", i))
	}
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "awaited", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
}

// What comes after a sidecar waits for it to be started, not for the next status.
func TestSidecarsWithoutStartupProbesCostNoTime(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	for i := range 20 {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, v1.Container{Name: fmt.Sprint("side", i), Image: "run", RestartPolicy: new(v1.ContainerRestartPolicyAlways)})
	}
	began := time.Now()
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
	if took := time.Since(began); took > 2*time.Second { // a status that can wait does so for 300 ms
		t.Errorf("took %s", took)
	}
}

func TestVariableWithANULByteIsRefused(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	for uid, container := range map[types.UID]v1.Container{
		"env":  {Name: "app", Image: "run", Env: []v1.EnvVar{{Name: "TOKEN", Value: "a\x00b"}}},
		"args": {Name: "app", Image: "run", Args: []string{"a\x00b"}},
	} {
		pod := newPod(v1.RestartPolicyAlways, container)
		pod.UID = uid
		c.put(pod)
		p := c.waitFor(uid, "refused", func(p *v1.Pod) bool { return waitingReason(p) == "RunContainerError" })
		if text := p.Status.ContainerStatuses[0].State.Waiting.Message; !strings.Contains(text, "NUL") {
			t.Errorf("%s: message %q", uid, text)
		}
	}
	for _, call := range s.Calls() {
		if strings.HasPrefix(call, "CreateContainer") {
			t.Errorf("the runtime was asked: %s", call)
		}
	}
}
