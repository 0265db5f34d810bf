package scenario

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// others are the programs of each seat, of which a node has one.
var others = map[string][2]string{
	"agent": {"trivet", "kubelet"},
	"cri":   {"trivet", "containerd"},
	"cni":   {"trivet", "upstream"},
	"csi":   {"trivet", "local-path"},
}

// seats are the programs that sit on the test's node.
func (c *cluster) seats() map[string]string {
	c.t.Helper()
	n := c.plan().Nodes[c.index()]
	return map[string]string{"agent": n.Agent, "cri": n.CRI, "cni": n.CNI, "csi": n.CSI}
}

// other is the program for a seat that does not sit there.
func (c *cluster) other(seat string) string {
	if both := others[seat]; both[0] != c.seats()[seat] {
		return both[0]
	}
	return others[seat][1]
}

// keepSeats puts the programs of now back when the test ends.
func (c *cluster) keepSeats(names ...string) {
	own := c.seats()
	c.t.Cleanup(func() {
		for _, seat := range names {
			c.do(seat, c.node, own[seat])
		}
	})
}

// TestPartsAreExchangedUnderThirtyPods puts another agent, CNI plugin and provisioner under thirty pods and
// takes them away again. What each has done for a pod, the next one in the seat undoes.
func TestPartsAreExchangedUnderThirtyPods(t *testing.T) {
	c := open(t)
	c.keepSeats("agent", "cni", "csi")
	f := c.startFleet(30)
	f.awaitAgeForKubelet()

	for _, seat := range []string{"agent", "cni", "csi"} {
		own, other := c.seats()[seat], c.other(seat)
		f.newcomer("before-" + seat)
		if seat == "csi" {
			// A volume is taken from a pod by its own driver.
			f.gone("before-csi")
		}

		f.exchange(seat, other)
		f.newcomer("with-" + other)
		if seat != "csi" {
			f.gone("before-" + seat)
		}
		f.unchanged(seat + " " + other)

		f.exchange(seat, own)
		f.newcomer("again-" + own + "-" + seat)
		f.gone("with-" + other)
		f.gone("again-" + own + "-" + seat)
		f.unchanged(seat + " " + own + " again")
	}
}

// awaitAgeForKubelet waits until no container is one that kubelet would take for new: it shows those that
// began less than ten seconds before itself as not ready until their first probe (kubeletRestartGracePeriod
// of its package prober). trivet-node has no such time.
func (f *fleet) awaitAgeForKubelet() {
	f.t.Helper()
	const grace = 11 * time.Second
	f.eventually(2*grace, "pods older than what kubelet takes for new", func() error {
		if age := time.Since(f.ready); age < grace {
			return fmt.Errorf("they are Ready for %v", age)
		}
		return nil
	})
}

// exchange puts a program into a seat, and says how long it took.
func (f *fleet) exchange(seat, program string) {
	f.t.Helper()
	began := time.Now()
	f.do(seat, f.node, program)
	f.t.Logf("%s %s after %v", seat, program, time.Since(began).Round(10*time.Millisecond))
}

// TestDaemonsAreUpgradedUnderThirtyPods ends each daemon of the node and starts what is on disk then, as an
// upgrade does.
func TestDaemonsAreUpgradedUnderThirtyPods(t *testing.T) {
	c := open(t)
	daemons := []string{c.agent, c.cri}
	if c.seats()["cni"] == "trivet" {
		daemons = append(daemons, "trivet-netd")
	}
	if c.seats()["csi"] == "trivet" {
		daemons = append(daemons, "trivet-csi")
	}

	f := c.startFleet(30)
	if c.agent == "kubelet" {
		f.awaitAgeForKubelet()
	}

	for _, daemon := range daemons {
		c.do("stop", c.node, daemon)
		c.do("start", c.node, daemon)
		f.newcomer("after-" + daemon)
		f.gone("after-" + daemon)
		f.unchanged("restart of " + daemon)
	}
}

// stateful is a workload with a volume for each pod, on one node.
const stateful = `{"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "db"}, "spec": {
	"serviceName": "db", "replicas": 2, "podManagementPolicy": "Parallel",
	"selector": {"matchLabels": {"app": "db"}}, "template": {"metadata": {"labels": {"app": "db"}}, "spec": {
		"nodeSelector": {"kubernetes.io/hostname": %q}, "terminationGracePeriodSeconds": 2,
		"containers": [{"name": "c", "image": "docker.io/trivet/demo:1",
			"command": ["sh", "-c", "mkdir -p /data/kv && exec /bin/demo serve"],
			"readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
			"volumeMounts": [{"name": "data", "mountPath": "/data"}]}]}},
	"volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"],
		"storageClassName": %q, "resources": {"requests": {"storage": "16Mi"}}}}]}}`

// TestCRIServersAreExchangedOnADrainedNode does it with what drains nodes, since a container is a child of
// the CRI server that started it: the pods come back with their data.
func TestCRIServersAreExchangedOnADrainedNode(t *testing.T) {
	c := open(t)
	drain := func() { c.kubectl("drain", c.node, "--force", "--delete-emptydir-data", "--timeout=60s") }
	t.Cleanup(func() { c.kubectl("uncordon", c.node) })
	c.keepSeats("cri")
	t.Cleanup(func() {
		if t.Failed() {
			drain()
		}
	})

	own, other := c.seats()["cri"], c.other("cri")
	c.apply(fmt.Sprintf(stateful, c.node, c.class()))
	c.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
	c.kubectl("exec", "db-0", "--", "sh", "-c", "echo first >/data/mark")
	if _, err := c.cluster("cri", c.node, other); err == nil || !strings.Contains(err.Error(), "drain") {
		t.Errorf("exchange under running pods: %v, want a refusal", err)
	}

	for _, server := range []string{other, own} {
		drain()
		began := time.Now()
		c.do("cri", c.node, server)
		t.Logf("cri %s after %v", server, time.Since(began).Round(10*time.Millisecond))

		c.kubectl("uncordon", c.node)
		c.kubectl("rollout", "status", "statefulset/db", "--timeout=90s")
		if got := c.kubectl("exec", "db-0", "--", "cat", "/data/mark"); got != "first\n" {
			t.Errorf("with %s the volume says %q", server, got)
		}
	}
}
