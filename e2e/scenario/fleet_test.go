package scenario

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/trivet-node/trivet/e2e/bench"
	clusters "github.com/trivet-node/trivet/e2e/cluster"
)

// fleet are pods with volumes and probes every second, whose lives are watched while parts of their node are
// exchanged.
type fleet struct {
	*cluster
	names []string
	ready time.Time // when all of them were, at first

	// before is what each of them looked like, as the node and the API show it.
	before map[string]string

	// mu guards faults: what the watch has seen that must not be.
	mu     sync.Mutex
	faults []string
}

// fleetPod serves HTTP. It has a volume of a claim that goes with it, one of each kind that the agent fills,
// and a token.
const fleetPod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {
	"nodeSelector": {"kubernetes.io/hostname": %q}, "terminationGracePeriodSeconds": 2,
	"volumes": [
		{"name": "data", "ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
			"storageClassName": %q, "resources": {"requests": {"storage": "16Mi"}}}}}},
		{"name": "scratch", "emptyDir": {}},
		{"name": "config", "configMap": {"name": "kube-root-ca.crt"}}],
	"containers": [{"name": "c", "image": "docker.io/trivet/demo:1",
		"command": ["sh", "-c", "mkdir -p /data/kv && exec /bin/demo serve"],
		"readinessProbe": %s,
		"livenessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1,
			"timeoutSeconds": 5, "failureThreshold": 20},
		"volumeMounts": [{"name": "data", "mountPath": "/data"}, {"name": "scratch", "mountPath": "/scratch"},
			{"name": "config", "mountPath": "/config"}]}]}}`

// strictly is how often probes come: one failure makes a pod unready. A machine that is busy with other tests
// may take more than a second to run a command.
const strictly = `"periodSeconds": 1, "timeoutSeconds": 5, "failureThreshold": 1}`

// everySecond are readiness probes of each kind.
var everySecond = []string{
	`{"httpGet": {"path": "/healthz", "port": 8080}, ` + strictly,
	`{"exec": {"command": ["ls", "/data"]}, ` + strictly,
	`{"tcpSocket": {"port": 8080}, ` + strictly,
}

// slowly is a readiness probe that takes three seconds, in which every second of the others comes.
const slowly = `{"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "successThreshold": 3}`

// startFleet starts so many pods on the test's node and begins to watch them.
func (c *cluster) startFleet(size int) *fleet {
	c.t.Helper()
	f := &fleet{cluster: c}
	var yaml strings.Builder
	for i := range size {
		name := fmt.Sprintf("fleet-%02d", i)
		f.names = append(f.names, name)
		probe := everySecond[i%len(everySecond)]
		fmt.Fprintf(&yaml, fleetPod+"\n---\n", name, c.node, c.class(), probe)
	}

	began := time.Now()
	c.apply(yaml.String())
	c.awaitReady(4*time.Minute, f.names...)
	f.ready = time.Now()
	c.t.Logf("%d pods are Ready after %v", size, f.ready.Sub(began).Round(100*time.Millisecond))

	for name, processes := range f.processes() {
		for _, pid := range processes {
			// Sandboxes have no volumes.
			_ = os.WriteFile(fmt.Sprintf("/proc/%d/root/data/mark", pid), []byte(name), 0o644)
		}
	}

	f.before = f.look()
	f.watch()
	return f
}

// class is the storage class of the provisioner that sits on the node now.
func (c *cluster) class() string { return c.plan().Nodes[c.index()].StorageClass() }

func (c *cluster) plan() clusters.Plan {
	c.t.Helper()
	plan, err := (&clusters.Cluster{Dir: c.dir}).Plan()
	if err != nil {
		c.t.Fatal(err)
	}
	return plan
}

// index is that of the test's node.
func (c *cluster) index() int {
	return slices.IndexFunc(c.plan().Nodes, func(n clusters.Node) bool { return n.Name == c.node })
}

// uids are those of the pods, by name.
func (f *fleet) uids() map[string]string {
	f.t.Helper()
	const each = `{range .items[*]}{.metadata.name} {.metadata.uid}{"\n"}{end}`
	uids := map[string]string{}
	for line := range strings.Lines(f.kubectl("get", "pods", "-o", "jsonpath="+each)) {
		name, uid, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(f.names, name) {
			uids[name] = uid
		}
	}
	return uids
}

// processes are the first ones of the pods' containers and sandboxes, by the names of the pods, with their
// PIDs on this host.
func (f *fleet) processes() map[string][]int {
	f.t.Helper()
	groups := map[string]string{}
	for name, uid := range f.uids() {
		groups[uid] = name
		groups[strings.ReplaceAll(uid, "-", "_")] = name
	}

	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		f.t.Fatal(err)
	}

	out := map[string][]int{}
	for _, dir := range dirs {
		group, _ := os.ReadFile(dir + "/cgroup")
		name := groups[podUID.FindString(string(group))]
		if name == "" || !isFirst(dir) {
			continue
		}

		var pid int
		if _, err := fmt.Sscanf(dir, "/proc/%d", &pid); err != nil {
			f.t.Fatal(err)
		}
		out[name] = append(out[name], pid)
	}

	return out
}

var podUID = regexp.MustCompile(`[0-9a-f]{8}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{4}[-_][0-9a-f]{12}`)

// isFirst reports whether a process is PID 1 of a PID namespace: neither a child nor what a probe executes.
func isFirst(dir string) bool {
	status, _ := os.ReadFile(dir + "/status")
	for line := range strings.Lines(string(status)) {
		if pids, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(pids)
			return len(fields) > 1 && fields[len(fields)-1] == "1"
		}
	}
	return false
}

// look is what must stay of each pod: its containers and when they began, its addresses, and its mounts, as
// the API shows them and as the kernel does.
func (f *fleet) look() map[string]string {
	f.t.Helper()
	const (
		container = `.status.containerStatuses[0]`
		each      = `{range .items[*]}{.metadata.name} address {.status.podIPs[*].ip}, restarts {` +
			container + `.restartCount}, since {` + container + `.state.running.startedAt}, {` +
			container + `.containerID}{"\n"}{end}`
	)
	looks := map[string]string{}
	for line := range strings.Lines(f.kubectl("get", "pods", "-o", "jsonpath="+each)) {
		name, shown, _ := strings.Cut(line, " ")
		if slices.Contains(f.names, name) {
			looks[name] = shown
		}
	}

	for name, pids := range f.processes() {
		for _, pid := range pids {
			looks[name] += lookAt(f.t, pid)
		}
	}
	for name, uid := range f.uids() {
		machine := (&clusters.Cluster{Dir: f.dir}).Machine(f.node)
		looks[name] += mountsOf(machine.Pid(), "/pods/"+uid+"/")
	}

	return looks
}

// lookAt is what the kernel shows of a process of a pod.
func lookAt(t *testing.T, pid int) string {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}

	// The field behind the name is the third, the start time the 22nd (proc(5)).
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	network, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", pid))
	mark, _ := os.ReadFile(fmt.Sprintf("/proc/%d/root/data/mark", pid))
	process := fmt.Sprintf("process %d since %s in %s, %s, its volume says %q\n",
		pid, fields[19], network, addressesOf(t, pid), mark)
	return process + mountsOf(pid, " /data ", " /scratch ", " /config ")
}

// addressesOf are those of the network namespace of a process.
func addressesOf(t *testing.T, pid int) string {
	t.Helper()
	ns, err := netns.GetFromPid(pid)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()

	kernel, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer kernel.Close()

	all, err := kernel.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}

	var texts []string
	for _, a := range all {
		if a.IP.IsGlobalUnicast() {
			texts = append(texts, a.IPNet.String())
		}
	}

	return strings.Join(texts, " ")
}

// mountsOf are the mounts of a process's namespace whose line in mountinfo has one of the words: ID, device
// and point.
func mountsOf(pid int, words ...string) string {
	table, _ := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	var out strings.Builder
	for line := range strings.Lines(string(table)) {
		hasWord := func(word string) bool { return strings.Contains(line, word) }
		if fields := strings.Fields(line); slices.ContainsFunc(words, hasWord) {
			fmt.Fprintf(&out, "mount %s of %s at %s\n", fields[0], fields[2], fields[4])
		}
	}
	return out.String()
}

// watch notes, until the test ends, each state of a pod that is not Ready, or not the first instance.
func (f *fleet) watch() {
	f.t.Helper()
	client, err := bench.Connect(f.dir + "/kubeconfig")
	if err != nil {
		f.t.Fatal(err)
	}

	list, err := client.CoreV1().Pods(f.namespace).List(f.t.Context(), metav1.ListOptions{})
	if err != nil {
		f.t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(f.t.Context())
	since := metav1.ListOptions{ResourceVersion: list.ResourceVersion}
	w, err := client.CoreV1().Pods(f.namespace).Watch(ctx, since)
	if err != nil {
		f.t.Fatal(err)
	}

	var watching sync.WaitGroup
	watching.Go(func() {
		for e := range w.ResultChan() {
			f.note(e)
		}
		if ctx.Err() == nil {
			f.fault("the watch of the pods has ended")
		}
	})

	f.t.Cleanup(func() {
		cancel()
		w.Stop()
		watching.Wait()
	})
}

func (f *fleet) note(e watch.Event) {
	pod, ok := e.Object.(*corev1.Pod)
	if !ok {
		f.fault(fmt.Sprintf("event %s: %v", e.Type, e.Object))
		return
	}

	switch {
	case !slices.Contains(f.names, pod.Name):
	case e.Type == watch.Deleted:
		f.fault("pod " + pod.Name + " was deleted")
	case !bench.IsReady(pod):
		f.fault(fmt.Sprintf("pod %s is not Ready: %+v", pod.Name, pod.Status.Conditions))
	case len(pod.Status.ContainerStatuses) == 0:
		f.fault("pod " + pod.Name + " shows no container")
	case pod.Status.ContainerStatuses[0].RestartCount > 0:
		f.fault("the container of pod " + pod.Name + " was restarted")
	}
}

func (f *fleet) fault(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.faults = append(f.faults, time.Now().Format(time.TimeOnly)+" "+text)
}

// unchanged checks that nothing of the pods is another than it was, and that none was unready since.
func (f *fleet) unchanged(since string) {
	f.t.Helper()
	if d := cmp.Diff(f.before, f.look()); d != "" {
		f.t.Errorf("after %s (-before +now): %s", since, d)
	}

	f.mu.Lock()
	defer f.mu.Unlock()

	if n := len(f.faults); n > 0 {
		f.t.Errorf("after %s: %d faults on the watch: %s", since, n, strings.Join(f.faults[:min(n, 5)], "\n"))
	}
	f.faults = nil
}

// newcomer starts a pod like the others, which takes three seconds to be Ready, and checks that it and all
// others reach each other, and that its address is its own.
func (f *fleet) newcomer(name string) {
	f.t.Helper()
	f.apply(fmt.Sprintf(fleetPod, name, f.node, f.class(), slowly))
	f.awaitReady(3*time.Minute, name)

	const address = "jsonpath={.status.podIP}"
	own := f.kubectl("get", "pod", name, "-o", address)
	theirs := map[string]string{}
	for _, n := range f.names {
		theirs[f.address(n)] = n
	}
	if other := theirs[own]; other != "" {
		f.t.Errorf("pod %s has the address %s of %s", name, own, other)
	}

	const ask = `for ip in %s; do timeout 3 wget -q -O /dev/null http://$ip:8080/healthz || echo $ip; done`
	all := strings.Join(slices.Sorted(maps.Keys(theirs)), " ")
	if lost := f.kubectl("exec", name, "--", "sh", "-c", fmt.Sprintf(ask, all)); lost != "" {
		f.t.Errorf("%s does not reach %s", name, strings.Join(strings.Fields(lost), " "))
	}
	if lost := f.kubectl("exec", f.names[0], "--", "sh", "-c", fmt.Sprintf(ask, own)); lost != "" {
		f.t.Errorf("%s does not reach %s, which is %s", f.names[0], own, name)
	}
}

// address is the one that the pod had when the watch began.
func (f *fleet) address(name string) string {
	_, rest, _ := strings.Cut(f.before[name], "address ")
	first, _, _ := strings.Cut(rest, ",")
	first, _, _ = strings.Cut(first, " ")
	return first
}

// gone deletes a pod and waits for its end.
func (f *fleet) gone(name string) {
	f.t.Helper()
	f.kubectl("delete", "pod", name, "--timeout=90s")
}
