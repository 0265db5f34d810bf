package scenario

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/kube/faultproxy"
)

// informed is a pod that shows a ConfigMap and a Secret, prints lines, and is never to be restarted.
const informed = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {"nodeName": %q,
	"terminationGracePeriodSeconds": 2, "volumes": [{"name": "n", "emptyDir": {}},
	{"name": "map", "configMap": {"name": "data"}}, {"name": "secret", "secret": {"secretName": "data"}}],
	"containers": [{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q],
	"resources": %s, "volumeMounts": [{"name": "n", "mountPath": "/n"},
	{"name": "map", "mountPath": "/map"}, {"name": "secret", "mountPath": "/secret"}]}]}}`

// operation is a run of changes behind a bad proxy.
type operation struct {
	*cluster
	dice *rand.Rand

	// value is what the ConfigMap and the Secret say, sizes what the lasting pods ask for, and first the
	// containers that they began with.
	value int
	sizes map[string]amount
	first map[string]string
}

// lasting are pods that stay.
var lasting = []string{"lasting-0", "lasting-1", "lasting-2"}

// write gives the ConfigMap and the Secret their next value.
func (o *operation) write() {
	o.t.Helper()
	o.value++
	o.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "data"},
		"data": {"k": "%d"}}`, o.value))
	o.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "data"},
		"stringData": {"k": "%d"}}`, o.value))
}

func (o *operation) make(name string, a amount) {
	o.t.Helper()
	o.apply(fmt.Sprintf(informed, name, o.node, "trap 'exit 0' TERM; "+counter, a.json()))
}

// step changes something.
func (o *operation) step() {
	o.t.Helper()
	name := fmt.Sprint("passing-", o.dice.IntN(4))
	small := amount{20, 16}
	_, missing := o.try("get", "pod", name)
	switch choice := o.dice.IntN(6); {
	case choice == 0:
		o.write()
	case choice == 1:
		which := lasting[o.dice.IntN(len(lasting))]
		o.sizes[which] = amount{20 + int64(o.dice.IntN(5))*10, 16}
		o.resize(which, o.sizes[which])
	case choice == 2:
		which := lasting[o.dice.IntN(len(lasting))]
		o.kubectl("label", "pod", which, "--overwrite", fmt.Sprint("change=", o.value))
	case missing != nil:
		o.make(name, small)
	case choice == 3:
		o.remove(name, "--wait=false")
	case choice == 4:
		o.remove(name, "--grace-period=0", "--force")
	default:
		// The same name, at once.
		o.remove(name, "--grace-period=0", "--force")
		o.make(name, small)
	}
}

// remove deletes a pod. One that was ending may be gone by now.
func (o *operation) remove(name string, how ...string) {
	o.kubectl(append([]string{"delete", "pod", name, "--ignore-not-found"}, how...)...)
}

// settled reports whether the node is where the API says.
func (o *operation) settled() error {
	out, err := o.try("get", "pods", "-o", "json")
	if err != nil {
		return err
	}

	var pods corev1.PodList
	if err := json.Unmarshal([]byte(out), &pods); err != nil {
		return err
	}
	for i := range pods.Items {
		if err := o.isRunning(&pods.Items[i]); err != nil {
			return err
		}
	}

	want, err := o.podsOfNode()
	if err != nil {
		return err
	}

	got := o.podsOnDisk()
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("the node has the pods %v, the API %v", got, want)
	}
	return nil
}

// isRunning checks that a pod runs, that its status is true, and that it shows the newest data.
func (o *operation) isRunning(pod *corev1.Pod) error {
	if pod.DeletionTimestamp != nil {
		return fmt.Errorf("pod %s is still ending", pod.Name)
	}
	if pod.Status.Phase != corev1.PodRunning || !pod.Status.ContainerStatuses[0].Ready {
		return fmt.Errorf("pod %s is %s", pod.Name, pod.Status.Phase)
	}

	// The container of the status is the one that runs.
	status := pod.Status.ContainerStatuses[0]
	_, id, _ := strings.Cut(status.ContainerID, "://")
	if out := o.onNode("", "grep -l %s /proc/[0-9]*/cgroup 2>/dev/null | head -1", id); out == "" {
		return fmt.Errorf("pod %s: its container %s does not run", pod.Name, id)
	}

	want := strings.TrimSpace(fmt.Sprintf("%d %d", o.value, o.value))
	const volumes = "/var/lib/kubelet/pods/%s/volumes/kubernetes.io~"
	at := fmt.Sprintf(volumes, pod.UID)
	shown := o.onNode("", "echo $(cat %sconfigmap/map/k) $(cat %ssecret/secret/k)", at, at)
	if strings.TrimSpace(shown) != want {
		return fmt.Errorf("pod %s shows %q, want %q", pod.Name, strings.TrimSpace(shown), want)
	}

	size, ok := o.sizes[pod.Name]
	if ok && status.Resources.Requests.Cpu().MilliValue() != size.cpu {
		cpu := status.Resources.Requests.Cpu()
		return fmt.Errorf("pod %s has %v of CPU, want %dm", pod.Name, cpu, size.cpu)
	}
	if first, ok := o.first[pod.Name]; ok && (first != status.ContainerID || status.RestartCount != 0) {
		o.t.Fatalf("pod %s was restarted: container %s, before %s", pod.Name, status.ContainerID, first)
	}
	return nil
}

// TestTheNodeEndsWhereTheAPISaysBehindABadProxy changes objects while what is between the agent
// and the API server loses, delays, doubles and reorders events, cuts watches off, and more. Another seed:
// TRIVET_FAULT_SEED.
func TestTheNodeEndsWhereTheAPISaysBehindABadProxy(t *testing.T) {
	endWhereTheAPISays(t, 1, func(faultproxy.Faults) faultproxy.Faults { return faultproxy.Faults{} })
}

// TestTheNodeEndsWhereTheAPISaysWhileEventsAreLost is of a proxy that never becomes good: answers come as
// they are, but events go on being lost, doubled and reordered, and the agent has to find out by itself.
func TestTheNodeEndsWhereTheAPISaysWhileEventsAreLost(t *testing.T) {
	endWhereTheAPISays(t, 2, func(f faultproxy.Faults) faultproxy.Faults {
		return faultproxy.Faults{Lose: f.Lose, Double: f.Double, Reorder: f.Reorder}
	})
}

// endWhereTheAPISays changes objects behind a bad proxy, and waits for the node. rest are the faults that go
// on meanwhile.
func endWhereTheAPISays(t *testing.T, seed uint64, rest func(faultproxy.Faults) faultproxy.Faults) {
	t.Helper()
	c := open(t)
	if c.agent != "trivet-node" {
		t.Skip("kubelet does not list again what its watches have lost")
	}

	proxy := c.disturb(seedOf(t, seed))
	o := &operation{
		cluster: c,
		dice:    rand.New(rand.NewPCG(proxy.seed, 5)),
		sizes:   map[string]amount{},
		first:   map[string]string{},
	}
	t.Logf("seed %d", proxy.seed)
	o.begin()

	faults := faultproxy.All(2 * time.Second)
	faults.Hang = 0.005
	proxy.Set(faults)
	for range 60 {
		o.step()
	}

	proxy.Set(rest(faults))
	began := time.Now()
	c.eventually(calm, "the node is where the API says", o.settled)
	t.Logf("after %v; faults: %s", time.Since(began).Round(time.Second), proxy.Tally())
	for _, name := range lasting {
		c.counted(name)
	}
}

// begin makes the data and the pods that stay, and remembers their containers.
func (o *operation) begin() {
	o.t.Helper()
	o.write()
	for _, name := range lasting {
		o.sizes[name] = amount{20, 16}
		o.make(name, o.sizes[name])
	}

	o.awaitReady(time.Minute, lasting...)
	for _, name := range lasting {
		const container = "jsonpath={.status.containerStatuses[0].containerID}"
		o.first[name] = o.kubectl("get", "pod", name, "-o", container)
	}
}
