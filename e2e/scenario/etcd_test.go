package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// etcd is the cluster "orders" of the operator, and the pod "writer", which writes to it all the time.
type etcd struct {
	*cluster

	nodes []string
	began time.Time
}

// written is what etcd-writer has found out.
type written struct {
	Acknowledged int
	Lost         int
	InDoubt      int
	Backwards    int
	LongestPause int64 `json:"longestPauseMillis"`
}

// withOperator installs the operator, and removes it at the end of the test, before its namespace goes.
func withOperator(c *cluster) *etcd {
	c.t.Helper()
	const config, namespace = "e2e/operator/config", "--namespace=etcd-operator"
	c.t.Cleanup(func() {
		for _, node := range c.allNodes() {
			_, _ = c.cluster("start", node, c.agent)
		}
		if c.t.Failed() {
			out, _ := c.try("get", "etcdclusters,etcdsnapshots,jobs,persistentvolumeclaims")
			c.t.Log(out)
			out, _ = c.try("get", "etcdclusters", "-o", "jsonpath={.items[*].status}")
			c.t.Log(out)
			out, _ = c.try("logs", namespace, "-l", "app.kubernetes.io/name=etcd-operator",
				"--prefix", "--tail=200")
			c.t.Log(out)
		}
		c.kubectl("delete", "-k", config, namespace, "--ignore-not-found", "--timeout=120s")
	})

	c.kubectl("apply", "-k", config, namespace)
	c.kubectl("wait", "--for=condition=Established", "--timeout=60s",
		"crd/etcdclusters.etcd.trivet.dev", "crd/etcdsnapshots.etcd.trivet.dev")
	c.kubectl("rollout", "status", "deployment/etcd-operator", namespace, "--timeout=120s")
	return &etcd{
		cluster: c,
		nodes:   c.allNodes(),
		began:   time.Now(),
	}
}

// sample applies one of the operator's samples.
func (e *etcd) sample(name string) {
	e.t.Helper()
	e.kubectl("apply", "-f", filepath.Join("e2e", "operator", "samples", name))
}

// settled waits until an EtcdCluster is as it is wanted.
func (e *etcd) settled(name string) {
	e.t.Helper()
	e.kubectl("wait", "etcdcluster/"+name, "--for=condition=Ready", "--timeout=180s")
}

// members are the members of orders that are ready, in the order of their names.
func (e *etcd) members() []string {
	e.t.Helper()
	return strings.Fields(e.ask("etcdcluster/orders", "{.status.members[?(@.ready==true)].name}"))
}

// ask reads a JSON path of an object.
func (e *etcd) ask(object, path string) string {
	e.t.Helper()
	return e.kubectl("get", object, "-o", "jsonpath="+path)
}

// claims are the names of the members' claims.
func (e *etcd) claims() []string {
	e.t.Helper()
	return strings.Fields(e.kubectl("get", "persistentvolumeclaims", "-l", "etcd.trivet.dev/cluster=orders",
		"-o", "jsonpath={.items[*].metadata.name}"))
}

// elsewhere is a ready member that is not on the writer's node, and its node: the leader, unless that is
// there.
func (e *etcd) elsewhere() (member, node string) {
	e.t.Helper()
	busy := e.ask("pod/writer", "{.spec.nodeName}")
	leader := e.ask("etcdcluster/orders", "{.status.members[?(@.leader==true)].name}")
	for _, m := range slices.Concat(strings.Fields(leader), e.members()) {
		if node := e.ask("pod/"+m, "{.spec.nodeName}"); node != busy {
			return m, node
		}
	}
	e.t.Fatalf("all members are on %s, where the writer is", busy)
	return "", ""
}

// replaced waits until an object of a name is another one than it was.
func (e *etcd) replaced(object, uid string) {
	e.t.Helper()
	e.eventually(time.Minute, "another "+object, func() error {
		now, err := e.try("get", object, "-o", "jsonpath={.metadata.uid}")
		if err == nil && now == uid {
			err = errors.New("it is still the same")
		}

		return err
	})
}

// column reads a JSON path of each object of a list, by the objects' names.
func (e *etcd) column(path string, list ...string) map[string]string {
	e.t.Helper()
	each := `jsonpath={range .items[*]}{.metadata.name} ` + path + `{"\n"}{end}`
	values := map[string]string{}
	for line := range strings.Lines(e.kubectl(append([]string{"get", "-o", each}, list...)...)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		values[name] = value
	}
	return values
}

// check compares a cluster with what the writer has noted.
func (e *etcd) check(cluster string, more ...string) written {
	e.t.Helper()
	command := []string{
		"exec", "writer", "--", "/etcd-writer", "check",
		"--endpoints=http://" + cluster + ":2379", "--journal=/journal",
	}
	out := e.kubectl(append(command, more...)...)
	var w written
	if err := json.Unmarshal([]byte(out), &w); err != nil {
		e.t.Fatalf("%q: %v", out, err)
	}
	return w
}

// goesOn waits until more writes are acknowledged.
func (e *etcd) goesOn() {
	e.t.Helper()
	before := e.check("orders").Acknowledged
	e.eventually(30*time.Second, "writes", func() error {
		if now := e.check("orders").Acknowledged; now <= before {
			return fmt.Errorf("%d writes are acknowledged, as before", now)
		}

		return nil
	})
}

// spread checks that the members are on as many nodes as they can be, each on the node of its volume.
func (e *etcd) spread(want int) {
	e.t.Helper()
	members := e.members()
	if len(members) != want || !slices.Equal(members, e.claims()) {
		e.t.Fatalf("members %v, claims %v, want %d of each", members, e.claims(), want)
	}

	const mine = "--selector=etcd.trivet.dev/cluster=orders"
	nodes := e.column("{.spec.nodeName}", "pods", mine)
	volumes := e.column("{.spec.volumeName}", "persistentvolumeclaims", mine)
	affinity := e.column("{.spec.nodeAffinity}", "persistentvolumes")
	used := map[string]bool{}
	for _, m := range members {
		used[nodes[m]] = true
		if where := affinity[volumes[m]]; !strings.Contains(where, `"`+nodes[m]+`"`) {
			e.t.Errorf("%s runs on %s, and its volume is elsewhere: %s", m, nodes[m], where)
		}
	}
	if len(used) != min(want, len(e.nodes)) {
		e.t.Errorf("%d members are on %d of %d nodes", want, len(used), len(e.nodes))
	}
}
