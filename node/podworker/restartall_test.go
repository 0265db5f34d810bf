package podworker_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/node/runtime/runtimetest"
)

// restarted reports whether all containers of a pod are ready after n restarts.
func restarted(n int32) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool {
		return ready(p) && !slices.ContainsFunc(p.Status.ContainerStatuses, func(c v1.ContainerStatus) bool {
			return c.RestartCount != n
		})
	}
}

func TestLogsOutliveARestartOfAllContainersUntilTheNextOne(t *testing.T) {
	s := runtimetest.Start(t)
	c := newCluster(t)
	root := t.TempDir()
	stop := c.start(s, root)

	asks := v1.Container{Name: "app", Image: "run"}
	asks.RestartPolicyRules = []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{42},
		},
	}}

	pod := newPod(v1.RestartPolicyNever, asks, v1.Container{Name: "other", Image: "run"})
	c.put(pod)
	c.waitFor(pod.UID, "ready", ready)

	logs := filepath.Join(root, "logs", "shop_web_"+string(pod.UID), "app")
	write := func(name string) {
		if err := os.WriteFile(filepath.Join(logs, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}

	write("0.log")
	s.Exit("app", 42)
	p := c.waitFor(pod.UID, "restarted", restarted(1))
	if last := p.Status.ContainerStatuses[0].LastTerminationState.Terminated; last == nil ||
		last.ExitCode != 42 {
		t.Errorf("last state of the container that asked for it: %+v", last)
	}

	// The next agent knows nothing but what the API and the node have.
	stop()
	write("1.log")
	s.Exit("app", 42)
	c.start(s, root)
	c.waitFor(pod.UID, "restarted again", restarted(2))

	left, err := filepath.Glob(filepath.Join(logs, "*.log"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "1.log" {
		t.Errorf("logs %v (%v), want 1.log", left, err)
	}
}
