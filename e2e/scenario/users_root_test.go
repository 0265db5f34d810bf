package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// needUsers skips a test whose node has no pods with user namespaces.
func (c *cluster) needUsers() {
	c.t.Helper()
	const path = `jsonpath={.status.runtimeHandlers[?(@.name=="")].features.userNamespaces}`
	if c.kubectl("get", "node", c.node, "-o", path) != "true" {
		testenv.Skip(c.t, "node %s has no user namespaces (docs/cri.md says what they need)", c.node)
	}
}

// mapped runs a pod with a user namespace on the test's node, as pod does. It is restarted when it ends.
func (c *cluster) mapped(name, script string) {
	c.t.Helper()
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {"nodeName": %q,
		"hostUsers": false, "terminationGracePeriodSeconds": 2, "securityContext": {"fsGroup": 3000},
		"volumes": [{"name": "n", "emptyDir": {}}], "containers": [
		{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q],
		"volumeMounts": [{"name": "n", "mountPath": "/n"}]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, script))
}

// firstUser is the ID on the host of a pod's root.
func (c *cluster) firstUser(pod string) string {
	c.t.Helper()
	line := strings.Fields(c.kubectl("exec", pod, "--", "cat", "/proc/self/uid_map"))
	if len(line) != 3 || line[0] != "0" || line[2] != "65536" {
		c.t.Fatalf("users of pod %s: %q", pod, line)
	}
	return line[1]
}

// again ends the container of a pod, and waits until it runs for the nth time more.
func (c *cluster) again(pod, restarts string) {
	c.t.Helper()
	killed := false
	c.eventually(2*time.Minute, "restart of "+pod, func() error {
		// An agent that has just taken its seat may not answer yet.
		if !killed {
			_, err := c.try("exec", pod, "--", "sh", "-c", "kill 1")
			killed = err == nil
		}

		if n := c.restarts(pod); n != restarts {
			return fmt.Errorf("%s restarts", n)
		}

		return nil
	})
	c.awaitReady(time.Minute, pod)
}

// stays is a script that ends on SIGTERM.
const stays = `trap 'exit 0' TERM; echo up; while :; do sleep 0.2; done`

func TestPodsHaveUsersOfTheirOwn(t *testing.T) {
	c := open(t)
	c.needUsers()
	c.mapped("a", "echo note >/n/note; "+stays)
	c.mapped("b", stays)
	c.awaitReady(time.Minute, "a", "b")

	first := c.firstUser("a")
	if other := c.firstUser("b"); first == other {
		t.Errorf("both pods have the users from %s on", first)
	}

	// Its files are readable, and those of its volumes belong to whom they belonged to without the namespace.
	const read = "cd /var/run/secrets/kubernetes.io/serviceaccount && cat token /etc/hosts /etc/resolv.conf"
	const group = "stat -c %g /n | grep -qx 3000 && echo x >/dev/termination-log"
	c.kubectl("exec", "a", "--", "sh", "-c", read+" >/dev/null && "+group)
	uid := c.kubectl("get", "pod", "a", "-o", "jsonpath={.metadata.uid}")
	dir := "/var/lib/kubelet/pods/" + uid
	note := c.onNode("", "stat -c %%u %s/volumes/kubernetes.io~empty-dir/n/note", dir)
	process := c.onNode("", "stat -c %%u /proc/$(pgrep -o -f 'echo note >/n/not[e]')")
	if strings.TrimSpace(note) != "0" || strings.TrimSpace(process) != first {
		t.Errorf("a file of the pod's root is of %s, its process of %s, not of %s", note, process, first)
	}

	// Whatever is killed, it stays what it is.
	c.do("kill", c.node, c.agent)
	c.do("kill", c.node, c.cri)
	c.do("start", c.node, c.cri)
	c.do("start", c.node, c.agent)
	c.again("a", "1")
	if now := c.firstUser("a"); now != first {
		t.Errorf("after the restart its users begin at %s, not at %s", now, first)
	}
	if log := c.kubectl("logs", "a"); log != "up\n" {
		t.Errorf("log %q", log)
	}

	c.kubectl("delete", "pod", "a", "--timeout=60s")
	c.eventually(time.Minute, "end of "+dir, func() error {
		if left := c.onNode("", "ls -d %s 2>/dev/null || true", dir); left != "" {
			return fmt.Errorf("%s is there", left)
		}
		return nil
	})
}

// TestUsersStayWhenAgentsAreExchanged has kubelet, or ours, restart the container of a pod that the other one
// has made.
func TestUsersStayWhenAgentsAreExchanged(t *testing.T) {
	c := open(t)
	c.needUsers()
	c.keepSeats("agent")
	own, other := c.seats()["agent"], c.other("agent")
	c.mapped("ours", stays)
	c.awaitReady(time.Minute, "ours")
	ours := c.firstUser("ours")

	c.do("agent", c.node, other)
	c.again("ours", "1")
	c.mapped("theirs", stays)
	c.awaitReady(time.Minute, "theirs")
	theirs := c.firstUser("theirs")

	c.do("agent", c.node, own)
	c.again("ours", "2")
	c.again("theirs", "1")
	if now := c.firstUser("ours"); now != ours || ours == theirs {
		t.Errorf("users of ours begin at %s, before at %s", now, ours)
	}
	if now := c.firstUser("theirs"); now != theirs {
		t.Errorf("users of theirs begin at %s, before at %s", now, theirs)
	}
}
