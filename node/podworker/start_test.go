package podworker_test

import (
	"fmt"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
	"github.com/trivet-node/trivet/node/volume"
)

func TestHooksThatWaitForAnotherPodDoNotKeepItFromStarting(t *testing.T) {
	t.Parallel()
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	hook := &v1.Lifecycle{PostStart: &v1.LifecycleHandler{Sleep: &v1.SleepAction{Seconds: 3600}}}
	for i := range 2 * startsAtOnce {
		pod := newPod(
			v1.RestartPolicyAlways,
			v1.Container{Name: fmt.Sprint("hooked", i), Image: "run", Lifecycle: hook},
		)

		pod.UID = types.UID(fmt.Sprint("hooked", i))
		c.put(pod)
		c.waitForEvent(pod.UID, fmt.Sprint("Started hooked", i))
	}

	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "awaited", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)
}

// What comes after a sidecar waits for it to be started, not for the next status: here none is ever sent.
func TestSidecarsWithoutStartupProbesCostNoTime(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	c.cut = make(chan struct{})
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
	for i := range 20 {
		pod.Spec.InitContainers = append(pod.Spec.InitContainers, v1.Container{
			Name:          fmt.Sprint("side", i),
			Image:         "run",
			RestartPolicy: new(v1.ContainerRestartPolicyAlways),
		})
	}

	c.put(pod)
	c.waitForEvent(pod.UID, "Started app")
}

func TestAStartThatADeletionCutsShortIsNoFailure(t *testing.T) {
	for _, method := range []string{"RunPodSandbox", "CreateContainer"} {
		t.Run(method, func(t *testing.T) {
			s, c := runtimetest.Start(t), newCluster(t)
			s.Hold(method)
			c.start(s, t.TempDir())
			pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
			c.put(pod)
			s.Await(t, "Hold "+method)
			c.remove(pod.UID, 0)
			c.waitFor(pod.UID, "gone", gone)

			c.mu.Lock()
			defer c.mu.Unlock()

			for _, event := range c.events {
				if strings.HasPrefix(event, "Failed") {
					t.Errorf("event %q", event)
				}
			}
		})
	}
}

func TestVariableWithANULByteIsRefused(t *testing.T) {
	t.Parallel()
	s, c := runtimetest.Start(t), newCluster(t)
	c.start(s, t.TempDir())
	for uid, container := range map[types.UID]v1.Container{
		"env":  {Name: "app", Image: "run", Env: []v1.EnvVar{{Name: "TOKEN", Value: "a\x00b"}}},
		"args": {Name: "app", Image: "run", Args: []string{"a\x00b"}},
	} {
		pod := newPod(v1.RestartPolicyAlways, container)
		pod.UID = uid
		c.put(pod)
		p := c.waitFor(uid, "refused", func(p *v1.Pod) bool {
			return waitingReason(p) == "RunContainerError"
		})
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

func TestRecursiveReadOnlyAsTheRuntimeCan(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	can := v1.NodeRuntimeHandler{Features: &v1.NodeRuntimeHandlerFeatures{RecursiveReadOnlyMounts: new(true)}}
	c.start(s, t.TempDir())
	for _, k := range []struct {
		mode     v1.RecursiveReadOnlyMode
		handlers []v1.NodeRuntimeHandler
		want     v1.RecursiveReadOnlyMode // in the status; empty: refused
	}{
		{v1.RecursiveReadOnlyIfPossible, nil, v1.RecursiveReadOnlyDisabled},
		{v1.RecursiveReadOnlyIfPossible, []v1.NodeRuntimeHandler{can}, v1.RecursiveReadOnlyEnabled},
		{v1.RecursiveReadOnlyEnabled, []v1.NodeRuntimeHandler{can}, v1.RecursiveReadOnlyEnabled},
		{v1.RecursiveReadOnlyEnabled, nil, ""},
	} {
		c.mount([]volume.Mount{{
			Name:          "data",
			HostPath:      "/srv",
			ContainerPath: "/data",
			ReadOnly:      true,
			Propagation:   v1.MountPropagationNone,
			Recursive:     k.mode,
		}}, k.handlers)

		pod := newPod(v1.RestartPolicyAlways, v1.Container{Name: "app", Image: "run"})
		pod.UID = types.UID(fmt.Sprint(k.mode, len(k.handlers)))
		pod.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{
			Name:              "data",
			MountPath:         "data",
			ReadOnly:          true,
			RecursiveReadOnly: &k.mode,
		}}

		c.put(pod)
		if k.want == "" {
			c.waitFor(pod.UID, "refused", func(p *v1.Pod) bool {
				return waitingReason(p) == "CreateContainerConfigError"
			})
			continue
		}

		p := c.waitFor(pod.UID, "ready", ready)
		shown := p.Status.ContainerStatuses[0].VolumeMounts
		if len(shown) != 1 || shown[0].RecursiveReadOnly == nil || *shown[0].RecursiveReadOnly != k.want {
			t.Errorf("%s with %d handlers: %+v, want %s", k.mode, len(k.handlers), shown, k.want)
		}
	}
}

// trivet-cri publishes the end of a container whose program does not exist before it answers the start.
func TestAStartThatFailsIsToldThoughTheEndWasSeenBefore(t *testing.T) {
	s, c := runtimetest.Start(t), newCluster(t)
	answer := s.Refuse("app")
	defer answer()
	c.start(s, t.TempDir())
	pod := newPod(v1.RestartPolicyNever, v1.Container{Name: "app", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "shown as ended", func(p *v1.Pod) bool {
		all := p.Status.ContainerStatuses
		return len(all) == 1 && all[0].State.Terminated != nil
	})

	answer()
	c.waitForEvent(pod.UID, "Failed app")
}
