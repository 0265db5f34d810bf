package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// onSystemd moves the test to a node whose PID 1 is systemd.
func onSystemd(t *testing.T) *cluster {
	t.Helper()
	c := open(t)
	data, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}

	var plan struct {
		Nodes []struct{ Name, Init string }
	}
	if err := json.Unmarshal(data, &plan); err != nil {
		t.Fatal(err)
	}

	for _, n := range plan.Nodes {
		if n.Init == "systemd" {
			c.node = n.Name
			return c
		}
	}

	testenv.Skip(t, "no node of the cluster has systemd as PID 1 (SYSTEMD=1)")
	return nil
}

// burstableSlice is the slice of a burstable pod, and its path below a hierarchy.
func (c *cluster) burstableSlice(pod string) (name, path string) {
	c.t.Helper()
	uid := c.kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.uid}")
	name = "kubepods-burstable-pod" + strings.ReplaceAll(uid, "-", "_") + ".slice"
	return name, "kubepods.slice/kubepods-burstable.slice/" + name
}

// limit reads a limit of a group on the test's node, on cgroup v1 or v2.
func (c *cluster) limit(group, controller, v1, v2 string) string {
	c.t.Helper()
	const root = "/sys/fs/cgroup"
	out, err := c.cluster("exec", c.node, "sh", "-c",
		fmt.Sprintf("cat %[1]s/%[3]s/%[2]s/%[4]s 2>/dev/null || cat %[1]s/%[2]s/%[5]s",
			root, group, controller, v1, v2))
	if err != nil {
		c.t.Fatal(err)
	}
	value, _, _ := strings.Cut(strings.TrimSpace(out), " ")
	return value
}

// limits is a pod whose container has limits, besides that of processes, which is the node's.
const limits = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bounded"}, "spec": {"nodeName": %q,
	"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": "docker.io/trivet/demo:1",
	"command": ["sleep", "1000"], "resources": {"requests": {"cpu": "100m", "memory": "16Mi"},
	"limits": {"cpu": "500m", "memory": "64Mi"}}}]}}`

func TestPodLimitsUnderSystemd(t *testing.T) {
	c := onSystemd(t)
	c.apply(fmt.Sprintf(limits, c.node))
	c.awaitReady(time.Minute, "bounded")
	slice, group := c.burstableSlice("bounded")
	check := func(when string) {
		t.Helper()
		for _, l := range []struct{ what, got, want string }{
			{"memory", c.limit(group, "memory", "memory.limit_in_bytes", "memory.max"), "67108864"},
			{"CPU quota", c.limit(group, "cpu", "cpu.cfs_quota_us", "cpu.max"), "50000"},
			{"processes", c.limit(group, "pids", "pids.max", "pids.max"), "4096"},
		} {
			if l.got != l.want {
				t.Errorf("%s: limit of %s %s, want %s", when, l.what, l.got, l.want)
			}
		}

		if all := c.limit("kubepods.slice", "pids", "pids.max", "pids.max"); all == "max" {
			t.Errorf("%s: all pods together may have any number of processes", when)
		}
	}

	check("at first")
	c.do("exec", c.node, "systemctl", "daemon-reload")
	check("after systemctl daemon-reload")

	c.do("kill", c.node, c.agent)
	c.do("start", c.node, c.agent)

	// When it runs, the agent does, too.
	c.pod("later", "sleep 1000 & wait")
	c.awaitReady(time.Minute, "later", "bounded")
	check("after the agent was killed")

	c.do("kill", c.node, c.agent)
	c.kubectl("delete", "pod", "bounded", "--wait=false")
	c.do("start", c.node, c.agent)
	c.kubectl("wait", "--for=delete", "pod/bounded", "--timeout=60s")
	c.eventually(time.Minute, "removal of "+slice, func() error {
		out, err := c.cluster("exec", c.node, "systemctl", "list-units", "--all", "--plain", "--no-legend",
			slice)
		if err == nil && strings.TrimSpace(out) != "" {
			err = errors.New(out)
		}

		return err
	})
}

// greedy takes 200 MB in one process, and may have 60 MiB as a pod: its container has no limit.
const greedy = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "greedy"}, "spec": {"nodeName": %q,
	"restartPolicy": "Never", "resources": {"limits": {"memory": "60Mi"}},
	"containers": [{"name": "c", "image": "docker.io/trivet/demo:1", 
	"command": ["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"]}]}}`

func TestPodThatTakesMoreThanItsOwnLimitIsOOMKilledUnderSystemd(t *testing.T) {
	c := onSystemd(t)
	c.apply(fmt.Sprintf(greedy, c.node))
	c.eventually(time.Minute, "end of the pod", func() error {
		got := c.kubectl("get", "pod", "greedy", "-o",
			"jsonpath={.status.containerStatuses[0].state.terminated.reason}")
		switch got {
		case "OOMKilled":
			return nil
		case "":
			return errors.New("it has not ended")
		}

		t.Fatalf("it ended as %s, want OOMKilled", got)
		return nil
	})
}
