package scenario

import (
	"fmt"
	"testing"
	"time"
)

// batch runs a pod whose first container succeeds at once and whose second goes on.
func (c *cluster) batch(name, policy string) {
	c.t.Helper()
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q},
		"spec": {"nodeName": %q, "restartPolicy": %q, "terminationGracePeriodSeconds": 1, "containers": [
		{"name": "done", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", "exit 0"]},
		{"name": "work", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", "exec sleep 1000"]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, policy))
}

// show is what the API shows of the pod's containers, in the order of their names.
func (c *cluster) show(pod, path string) string {
	c.t.Helper()
	return c.kubectl("get", "pod", pod, "-o", "jsonpath="+path)
}

func TestWhatHasRunDoesNotRunAgainAfterAReboot(t *testing.T) {
	c := open(t)
	c.batch("never", "Never")
	c.batch("onfailure", "OnFailure")
	const done, work = ".status.containerStatuses[0]", ".status.containerStatuses[1]"
	const states = "{" + done + ".state.terminated.exitCode} {" + work + ".state.running}"
	for _, pod := range []string{"never", "onfailure"} {
		c.eventually(time.Minute, pod+" as it is before the reboot", func() error {
			if got := c.show(pod, states); len(got) < len("0 {") || got[:2] != "0 " {
				return fmt.Errorf("containers %q", got)
			}

			return nil
		})
	}

	c.do("reboot", c.node)
	c.kubectl("wait", "pod/never", "--for=jsonpath={.status.phase}=Failed", "--timeout=60s")
	const ends = "{range .status.containerStatuses[*]}" +
		"{.restartCount} {.state.terminated.exitCode} {.state.terminated.reason};{end}"
	if got := c.show("never", ends); got != "0 0 Completed;0 255 Unknown;" {
		t.Errorf("the pod that never restarts: %q", got)
	}

	const restarted = "{" + work + ".restartCount} {" + work + ".lastState.terminated.exitCode}"
	c.eventually(time.Minute, "restart of what had not succeeded", func() error {
		if got := c.show("onfailure", restarted); got != "1 255" {
			return fmt.Errorf("restarts and last exit code %q, want 1 255", got)
		}

		return nil
	})

	const kept = "{" + done + ".restartCount} {" + done + ".state.terminated.exitCode}"
	if got := c.show("onfailure", kept); got != "0 0" {
		t.Errorf("what had succeeded: restarts and exit code %q", got)
	}
}
