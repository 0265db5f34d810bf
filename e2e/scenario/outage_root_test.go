package scenario

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestPodsLiveOnWhileTheAPIServerIsDead(t *testing.T) {
	c := open(t)
	c.pod("counter", counter)

	// restarts on its own while nobody can ask for it
	c.pod("crasher", "sleep 2; exit 3")
	c.awaitReady(time.Minute, "counter")
	c.do("kill", "control-plane", "kube-apiserver")
	before := time.Now()
	c.eventually(30*time.Second, "time without the API server", func() error {
		if time.Since(before) < 8*time.Second {
			return errors.New("not yet")
		}

		return nil
	})

	c.do("start", "control-plane", "kube-apiserver")
	c.eventually(
		time.Minute,
		"API server",
		func() error { _, err := c.try("get", "--raw=/readyz"); return err },
	)

	c.pod("late", counter)
	c.awaitReady(time.Minute, "late", "counter")
	c.neverRestarted("counter")
	c.eventually(time.Minute, "restart of the crashed container", func() error {
		if c.restarts("crasher") == "0" {
			return errors.New("its restart is not reported")
		}

		return nil
	})
	if c.counted("counter") < 8*5-10 {
		t.Error("the container stood still while the API server was dead")
	}
}

func TestPodBoundDuringACutStartsWhenTheNetworkIsBack(t *testing.T) {
	c := open(t)
	c.pod("before", counter)
	c.awaitReady(time.Minute, "before")
	c.do("cut", c.node)
	c.pod("bound", counter)
	c.kubectl("delete", "pod", "before", "--wait=false")
	cut := time.Now()
	c.eventually(time.Minute, "cut of 30 s", func() error {
		if time.Since(cut) < 30*time.Second {
			return errors.New("not yet")
		}

		return nil
	})

	c.do("mend", c.node)
	c.awaitReady(90*time.Second, "bound")
	c.kubectl("wait", "--for=delete", "pod/before", "--timeout=90s")
}

func TestNodeRebooted(t *testing.T) {
	c := open(t)
	c.pod("counter", counter)
	c.apply(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keeper"}, "spec": {"nodeName": "` + c.node + `",
		"terminationGracePeriodSeconds": 1, "volumes": [{"name": "v", "emptyDir": {}}], "containers": [{"name": "c", "image": "docker.io/trivet/demo:1",
		"command": ["sh", "-c", "echo x >>/v/starts; exec sleep 1000"], "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}}`)
	c.awaitReady(time.Minute, "counter", "keeper")
	c.do("reboot", c.node)
	for _, p := range []string{"counter", "keeper"} {
		c.eventually(2*time.Minute, "restart of "+p, func() error {
			if got := c.restarts(p); got != "1" {
				return fmt.Errorf("restarted %s times, want once", got)
			}

			return nil
		})
	}

	c.awaitReady(time.Minute, "counter", "keeper")
	if got := c.kubectl("exec", "keeper", "--", "cat", "/v/starts"); got != "x\nx\n" {
		t.Errorf("the emptyDir has %q after the reboot, want both starts", got)
	}
	if got := c.kubectl("get", "pods", "-o", "jsonpath={.items[*].status.podIP}"); len(strings.Fields(got)) != 2 || strings.Fields(got)[0] == strings.Fields(got)[1] {
		t.Errorf("pod addresses %q, want two different ones", got)
	}
}
