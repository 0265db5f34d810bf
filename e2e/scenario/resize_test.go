package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/e2e/podresize"
)

// amount is what a container asks for, in thousandths of a processor and MiB. Its limits are twice as much.
type amount struct{ cpu, memory int64 }

func (a amount) json() string {
	const list = `{"cpu": "%dm", "memory": "%dMi"}`
	return fmt.Sprintf(`{"requests": `+list+`, "limits": `+list+`}`, a.cpu, a.memory, 2*a.cpu, 2*a.memory)
}

// resizable runs a counter with these resources on the test's node. Its container is restarted for other
// memory if the policy is RestartContainer, and not if it is NotRequired.
func (c *cluster) resizable(name string, a amount, policy string) {
	c.t.Helper()
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {"nodeName": %q,
		"terminationGracePeriodSeconds": 2, "volumes": [{"name": "n", "emptyDir": {}}], "containers": [
		{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q], "resources": %s,
		"resizePolicy": [{"resourceName": "memory", "restartPolicy": %q}],
		"volumeMounts": [{"name": "n", "mountPath": "/n"}]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, "trap 'exit 0' TERM; "+counter, a.json(), policy))
}

// tryResize asks for other resources of a pod's container.
func (c *cluster) tryResize(name string, a amount) error {
	patch := fmt.Sprintf(`{"spec": {"containers": [{"name": "c", "resources": %s}]}}`, a.json())
	_, err := c.try("patch", "pod", name, "--subresource=resize", "-p", patch)
	return err
}

func (c *cluster) resize(name string, a amount) {
	c.t.Helper()
	if err := c.tryResize(name, a); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cluster) getPod(name string) (corev1.Pod, error) {
	var pod corev1.Pod
	out, err := c.try("get", "pod", name, "-o", "json")
	if err != nil {
		return pod, err
	}
	return pod, json.Unmarshal([]byte(out), &pod)
}

// awaitResized waits until the status of a pod shows the resources that its specification asks for, and the
// control groups of the container and the pod have them. Its container must have been restarted so often.
func (c *cluster) awaitResized(name string, a amount, restarts int) {
	c.t.Helper()
	want := podresize.Want{Restarts: int32(restarts)}
	c.eventually(time.Minute, "resize of "+name, func() error {
		pod, err := c.getPod(name)
		if err != nil {
			return err
		}

		want.Generation = pod.Generation
		isShown, err := want.ShownBy(&pod)
		if errors.Is(err, podresize.ErrRestarted) {
			c.t.Fatal(err)
		}
		if !isShown {
			status, _ := json.Marshal(pod.Status)
			return fmt.Errorf("status %s: %w", status, err)
		}

		return nil
	})

	c.inGroups(name, a)
}

// inGroups checks that the control groups of a pod's only container, and of the pod, have what belongs to
// these resources.
func (c *cluster) inGroups(name string, a amount) {
	c.t.Helper()
	want := map[string]int64{
		"cpu.shares":            a.cpu * 1024 / 1000,
		"cpu.cfs_quota_us":      2 * a.cpu * 100,
		"cpu.max":               2 * a.cpu * 100,
		"memory.limit_in_bytes": 2 * a.memory << 20,
		"memory.max":            2 * a.memory << 20,
	}

	got := c.groups(name)
	for file, value := range got {
		if n := want[strings.TrimPrefix(file, "../")]; value != fmt.Sprint(n) {
			c.t.Errorf("pod %s: %s of its container is %s, want %d", name, file, value, n)
		}
	}

	isThere := func(files ...string) bool {
		return slices.ContainsFunc(files, func(file string) bool { return got[file] != "" })
	}
	for _, above := range []string{"", "../"} {
		if !isThere(above+"cpu.cfs_quota_us", above+"cpu.max") ||
			!isThere(above+"memory.limit_in_bytes", above+"memory.max") {
			c.t.Errorf("pod %s: its container does not have limits in its groups: %v", name, got)
		}
	}
}

// groups are the first fields of files in the control groups of a pod's only container, and behind ../ of the
// pod itself, on cgroup v1 or v2. In a scope of systemd's, crun sets the limits of the group below it.
func (c *cluster) groups(name string) map[string]string {
	c.t.Helper()
	id := c.kubectl("get", "pod", name, "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	_, id, _ = strings.Cut(id, "://")
	out := c.onNode("", `for d in $(find /sys/fs/cgroup -type d -name '*%s*'); do
		own=$d; [ ! -d $d/container ] || own=$d/container
		for f in cpu.shares cpu.cfs_quota_us cpu.max memory.limit_in_bytes memory.max; do
			[ ! -e $own/$f ] || echo $f $(cat $own/$f)
			[ ! -e $d/../$f ] || echo ../$f $(cat $d/../$f)
		done
	done`, id)

	values := map[string]string{}
	for line := range strings.Lines(out) {
		if fields := strings.Fields(line); len(fields) > 1 {
			values[fields[0]] = fields[1]
		}
	}

	return values
}

// awaitPending waits until a pod says why its resize is not granted, and checks that what it has is what it
// had.
func (c *cluster) awaitPending(name, reason, message string, has amount) {
	c.t.Helper()
	const condition = `jsonpath={range .status.conditions[?(@.type=="PodResizePending")]}` +
		`{.status} {.reason}: {.message}{end}`
	c.eventually(time.Minute, "resize of "+name+" that is pending", func() error {
		got, err := c.try("get", "pod", name, "-o", condition)
		if err == nil && !strings.HasPrefix(got, "True "+reason+": "+message) {
			err = fmt.Errorf("condition PodResizePending %q, want %s: %s", got, reason, message)
		}
		return err
	})

	c.hasAllocated(name, has)
}

// hasAllocated checks that these resources are what is allocated for a pod's container and in force.
func (c *cluster) hasAllocated(name string, a amount) {
	c.t.Helper()
	want := fmt.Sprintf("%dm %dMi", a.cpu, a.memory)
	got := c.kubectl("get", "pod", name, "-o",
		"jsonpath={.status.containerStatuses[0].allocatedResources['cpu','memory']}")
	if got != want {
		c.t.Errorf("pod %s: allocated are %q, want %q", name, got, want)
	}
	c.inGroups(name, a)
}

// allocatableCPU is what the pods of the test's node may have, in thousandths of a processor.
func (c *cluster) allocatableCPU() int64 {
	c.t.Helper()
	text := c.kubectl("get", "node", c.node, "-o", "jsonpath={.status.allocatable.cpu}")
	q, err := resource.ParseQuantity(text)
	if err != nil {
		c.t.Fatalf("allocatable processors %q: %v", text, err)
	}
	return q.MilliValue()
}
