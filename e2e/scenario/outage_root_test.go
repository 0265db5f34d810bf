package scenario

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPodsLiveOnWhileTheAPIServerIsDead(t *testing.T) {
	c := open(t)
	c.pod("counter", counter)
	c.pod("crasher", "echo x >>/n/starts; sleep 2; exit 3")
	c.awaitReady(time.Minute, "counter")
	count, starts := c.notes("counter", "count"), c.notes("crasher", "starts")
	c.do("kill", "control-plane", "kube-apiserver")

	// The one goes on and the other is restarted while nobody can ask for it.
	c.awaitLines(count, 25)
	before := starts()
	c.eventually(time.Minute, "restart without the API server", func() error {
		if now := starts(); len(now) <= len(before) {
			return fmt.Errorf("it was started %d times", strings.Count(now, "x"))
		}

		return nil
	})

	c.do("start", "control-plane", "kube-apiserver")
	c.awaitAPI()
	c.pod("late", counter)

	// The scheduler asks again after up to a minute, when it was refused for long.
	c.awaitReady(3*time.Minute, "late", "counter")
	c.neverRestarted("counter")
	c.counted("counter")
	c.eventually(time.Minute, "restart of the crashed container", func() error {
		if c.restarts("crasher") == "0" {
			return errors.New("its restart is not reported")
		}

		return nil
	})
}

func TestPodBoundDuringACutStartsWhenTheNetworkIsBack(t *testing.T) {
	c := open(t)
	c.pod("before", counter)
	c.awaitReady(time.Minute, "before")
	c.do("cut", c.node)
	c.pod("bound", counter)
	c.kubectl("delete", "pod", "before", "--wait=false")

	// Long enough for the control plane to give the node up.
	c.kubectl("wait", "node/"+c.node, "--for=condition=Ready=Unknown", "--timeout=120s")
	c.do("mend", c.node)
	c.awaitReady(90*time.Second, "bound")
	c.kubectl("wait", "--for=delete", "pod/before", "--timeout=90s")
	c.kubectl("wait", "node/"+c.node, "--for=condition=Ready", "--timeout=90s")
}

// keeper is a pod that notes each start in an emptyDir.
const keeper = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keeper"}, "spec": {"nodeName": %q,
	"terminationGracePeriodSeconds": 1, "volumes": [{"name": "v", "emptyDir": {}}], "containers": [
	{"name": "c", "image": "docker.io/trivet/demo:1",
	"command": ["sh", "-c", "echo x >>/v/starts; exec sleep 1000"],
	"volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}`

func TestNodeRebooted(t *testing.T) {
	c := open(t)
	c.pod("counter", counter)
	c.apply(fmt.Sprintf(keeper, c.node))
	pods := []string{"counter", "keeper"}
	hasVolumes := c.seats()["csi"] == "trivet"
	if hasVolumes {
		c.claim("data", "")
		c.podWithClaim("owner", "data", "echo x >>/data/starts; sleep 3600 & wait")
		pods = append(pods, "owner")
	}
	c.awaitReady(2*time.Minute, pods...)
	c.do("reboot", c.node)
	for _, p := range pods {
		c.eventually(2*time.Minute, "restart of "+p, func() error {
			if got := c.restarts(p); got != "1" {
				return fmt.Errorf("restarted %s times, want once", got)
			}

			return nil
		})
	}

	c.awaitReady(time.Minute, pods...)
	if got := c.kubectl("exec", "keeper", "--", "cat", "/v/starts"); got != "x\nx\n" {
		t.Errorf("the emptyDir has %q after the reboot, want both starts", got)
	}

	if hasVolumes {
		if got := c.kubectl("exec", "owner", "--", "cat", "/data/starts"); got != "x\nx\n" {
			t.Errorf("the volume has %q after the reboot, want both starts", got)
		}
	}

	addresses := strings.Fields(c.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.podIP}"))
	slices.Sort(addresses)
	if len(slices.Compact(slices.Clone(addresses))) != len(pods) || len(addresses) != len(pods) {
		t.Errorf("pod addresses %q, want %d different ones", addresses, len(pods))
	}
}
