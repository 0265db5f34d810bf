package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestOperatorOfEtcdLosesNoAcknowledgedWrite runs an etcd cluster by an operator, with volumes of the nodes,
// while a client writes without a pause.
func TestOperatorOfEtcdLosesNoAcknowledgedWrite(t *testing.T) {
	c := open(t)
	e := withOperator(c)
	for _, step := range []struct {
		name string
		do   func()
	}{
		{"three members", e.create},
		{"five members, and the operator is killed meanwhile", e.grow},
		{"three members", e.shrink},
		{"a member's process is killed", e.killMember},
		{"a member's pod is deleted", e.deletePod},
		{"a member loses its volume", e.loseVolume},
		{"the agent of a node is killed", e.killNodeAgent},
		{"a node is rebooted", e.rebootNode},
		{"another version", e.update},
		{"a snapshot, and a cluster that starts with it", e.restore},
	} {
		began := time.Now()
		step.do()
		took, all := time.Since(began).Seconds(), time.Since(e.began).Seconds()
		t.Logf("%5.1fs  %s (%.1f s)", all, step.name, took)
	}

	found := e.check("orders")
	t.Logf("%d writes were acknowledged and %d lost; %d are in doubt; the longest pause was %d ms",
		found.Acknowledged, found.Lost, found.InDoubt, found.LongestPause)
	if found.Lost != 0 || found.Backwards != 0 || found.Acknowledged < 1000 {
		t.Errorf("found %+v", found)
	}

	e.kubectl("delete", "pod/writer", "etcdcluster/orders", "etcdcluster/orders-again", "--timeout=60s")
	e.kubectl("wait", "--for=delete", "persistentvolumeclaim", "-l", "etcd.trivet.dev/cluster",
		"--timeout=60s")
}

func (e *etcd) create() {
	e.sample("cluster.yaml")
	e.settled("orders")
	e.spread(3)
	e.sample("writer.yaml")
	e.awaitReady(time.Minute, "writer")
	e.goesOn()
}

func (e *etcd) grow() {
	e.kubectl("scale", "etcdcluster/orders", "--replicas=5")
	e.eventually(time.Minute, "a fourth member", func() error {
		_, err := e.try("get", "pod/orders-3")
		return err
	})
	e.kubectl("delete", "pod", "--namespace=etcd-operator", "-l", "app.kubernetes.io/name=etcd-operator",
		"--force", "--wait=false")
	e.settled("orders")
	e.spread(5)
}

func (e *etcd) shrink() {
	e.kubectl("scale", "etcdcluster/orders", "--replicas=3")
	e.settled("orders")
	e.eventually(30*time.Second, "three claims", func() error {
		if claims := e.claims(); len(claims) != 3 {
			return fmt.Errorf("there are %v", claims)
		}

		return nil
	})
	e.spread(3)
}

func (e *etcd) killMember() {
	member, node := e.elsewhere()
	restarts, err := strconv.Atoi(e.restarts(member))
	if err != nil {
		e.t.Fatal(err)
	}

	e.node = node
	// The brackets keep the shell from finding itself.
	e.onNode("", "kill -9 $(pgrep -f -- '[-]-name=%s ')", member)
	e.eventually(time.Minute, "restart of "+member, func() error {
		if got := e.restarts(member); got != strconv.Itoa(restarts+1) {
			return fmt.Errorf("restarted %s times, and %d before", got, restarts)
		}

		return nil
	})
	e.awaitReady(time.Minute, member)
	e.settled("orders")
}

func (e *etcd) deletePod() {
	member, _ := e.elsewhere()
	volume := e.ask("persistentvolumeclaim/"+member, "{.spec.volumeName}")
	uid := e.ask("pod/"+member, "{.metadata.uid}")
	e.kubectl("delete", "pod", member, "--timeout=60s")
	e.replaced("pod/"+member, uid)
	e.awaitReady(time.Minute, member)
	if now := e.ask("persistentvolumeclaim/"+member, "{.spec.volumeName}"); now != volume {
		e.t.Errorf("%s has the volume %s, and had %s", member, now, volume)
	}
}

// loseVolume deletes a claim, which goes with the last pod that uses it: another member takes its place.
func (e *etcd) loseVolume() {
	member, _ := e.elsewhere()
	id := fmt.Sprintf(`{.status.members[?(@.name==%q)].id}`, member)
	before := e.ask("etcdcluster/orders", id)
	uid := e.ask("persistentvolumeclaim/"+member, "{.metadata.uid}")
	e.kubectl("delete", "persistentvolumeclaim", member, "--wait=false")
	e.eventually(time.Minute, "removal of "+member, func() error {
		if now := e.ask("etcdcluster/orders", id); now == before {
			return fmt.Errorf("the member %s is still there", now)
		}

		return nil
	})
	e.settled("orders")
	if claims := e.claims(); len(claims) != 3 {
		e.t.Errorf("claims %v", claims)
	}

	now, err := e.try("get", "persistentvolumeclaim/"+member, "-o", "jsonpath={.metadata.uid}")
	if err == nil && now == uid {
		e.t.Errorf("the claim %s is still there", member)
	}
}

// killNodeAgent has a pod of a member deleted while nobody looks after its node.
func (e *etcd) killNodeAgent() {
	member, node := e.elsewhere()
	e.do("kill", node, e.agent)
	uid := e.ask("pod/"+member, "{.metadata.uid}")
	e.kubectl("delete", "pod", member, "--wait=false")
	e.goesOn()
	e.do("start", node, e.agent)
	e.replaced("pod/"+member, uid)
	e.awaitReady(time.Minute, member)
	e.settled("orders")
}

func (e *etcd) rebootNode() {
	member, node := e.elsewhere()
	restarts, err := strconv.Atoi(e.restarts(member))
	if err != nil {
		e.t.Fatal(err)
	}

	e.do("reboot", node)
	e.eventually(2*time.Minute, "restart of "+member, func() error {
		got := e.restarts(member)
		if n, err := strconv.Atoi(got); err != nil || n <= restarts {
			return fmt.Errorf("restarted %s times, and %d before", got, restarts)
		}

		return nil
	})
	e.awaitReady(time.Minute, member)
	e.settled("orders")
}

func (e *etcd) update() {
	const version = "3.7.3"
	_, err := e.try("patch", "etcdcluster/orders", "--type=merge", `-p={"spec":{"version":"3.5.0"}}`)
	if err == nil || !strings.Contains(err.Error(), "earlier version") {
		e.t.Errorf("a version of the past: %v, want a refusal", err)
	}

	patch := fmt.Sprintf(`-p={"spec":{"version":%q}}`, version)
	e.kubectl("patch", "etcdcluster/orders", "--type=merge", patch)
	e.settled("orders")
	versions := strings.Fields(e.ask("etcdcluster/orders", "{.status.members[*].version}"))
	if want := []string{version, version, version}; !slices.Equal(versions, want) {
		e.t.Errorf("members have the versions %v", versions)
	}
}

// restore takes a snapshot. What was acknowledged before must be in the other cluster.
func (e *etcd) restore() {
	before := time.Now().UnixMilli()
	e.sample("snapshot.yaml")
	e.kubectl("wait", "etcdsnapshot/monday", "--for=condition=Complete", "--timeout=120s")
	e.sample("restored.yaml")
	e.settled("orders-again")

	found := e.check("orders-again", fmt.Sprintf("--before=%d", before))
	if found.Lost != 0 || found.Acknowledged < 1000 {
		e.t.Errorf("the restored cluster: %+v", found)
	}
}
