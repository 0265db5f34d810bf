package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/testenv"
)

// onDisk moves the test to a node with a disk of its own, which others do not fill meanwhile.
func onDisk(t *testing.T) *cluster {
	t.Helper()
	c := open(t)
	data, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}

	var plan struct {
		Nodes []struct {
			Name string
			Disk int64
		}
	}
	if err := json.Unmarshal(data, &plan); err != nil {
		t.Fatal(err)
	}

	for _, n := range plan.Nodes {
		if n.Name == c.node && n.Disk > 0 {
			return c
		}
	}

	testenv.Skip(t, "node %s does not have a disk of its own (make up DISK=4Gi)", c.node)
	return nil
}

const agentConfig = "/etc/trivet/kubelet.json"

// settings restarts the agent of the test's node with other values in its KubeletConfiguration, and at the
// end of the test with its own. The node recovers from pressure in seconds.
func (c *cluster) settings(changed map[string]any) {
	c.t.Helper()
	own := c.onNode("", "cat %s", agentConfig)
	c.t.Cleanup(func() { c.configure(own) })

	var all map[string]any
	if err := json.Unmarshal([]byte(own), &all); err != nil {
		c.t.Fatal(err)
	}

	all["evictionPressureTransitionPeriod"] = "1s"
	all["imageMinimumGCAge"] = "1ms"
	all["volumeStatsAggPeriod"] = "5s"
	maps.Copy(all, changed)
	text, err := json.Marshal(all)
	if err != nil {
		c.t.Fatal(err)
	}

	c.configure(string(text))
}

// configure writes the agent's configuration and returns when the agent has been restarted with it.
func (c *cluster) configure(text string) {
	c.t.Helper()
	c.do("stop", c.node, c.agent)
	c.onNode(text, "cat >%s", agentConfig)
	c.do("start", c.node, c.agent)

	var want map[string]any
	if err := json.Unmarshal([]byte(text), &want); err != nil {
		c.t.Fatal(err)
	}

	c.eventually(time.Minute, "agent with other settings", func() error {
		out, err := c.try("get", "--raw", "/api/v1/nodes/"+c.node+"/proxy/configz")
		if err != nil {
			return err
		}

		var has struct {
			Config map[string]any `json:"kubeletconfig"`
		}
		if err := json.Unmarshal([]byte(out), &has); err != nil {
			return err
		}

		for _, key := range []string{"evictionHard", "evictionSoft", "kubeReserved"} {
			if fmt.Sprint(has.Config[key]) != fmt.Sprint(want[key]) && want[key] != nil {
				return fmt.Errorf("%s is %v, want %v", key, has.Config[key], want[key])
			}
		}

		return nil
	})
}

// left is what the node has left of something now, as a threshold that is crossed when some of it is taken.
func (c *cluster) left(script string, taken int64) string {
	c.t.Helper()
	now, err := strconv.ParseInt(strings.TrimSpace(c.onNode("", "%s", script)), 10, 64)
	if err != nil {
		c.t.Fatal(err)
	}
	return fmt.Sprint(now - taken)
}

// What the test's node has: bytes and inodes of its disk, memory, and processes that can be started.
const (
	bytesLeft  = `echo $(($(stat -f -c '%a * %S' /var/lib/kubelet)))`
	inodesLeft = `stat -f -c %d /var/lib/kubelet`
	memoryAll  = `echo $(($(sed -n 's/MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo) * 1024))`
	pidsLeft   = `echo $(($(sort -n /proc/sys/kernel/pid_max /proc/sys/kernel/threads-max | head -n 1) -
		$(cut -d/ -f2 /proc/loadavg | cut -d' ' -f1)))`
)

// eater is a pod that takes something of its node.
type eater struct {
	name, script string

	limit, request string // resources of its container, as JSON
	dir            string // its emptyDir in /n, as JSON; {} by default
	class          string // priority class
	grace          int
	tolerates      bool
	sidecar        bool // the script is that of a sidecar
}

// Scripts that take something.
func megabytes(n int, dir string) string {
	return fmt.Sprintf("dd if=/dev/zero of=%s/data bs=1000000 count=%d 2>/dev/null", dir, n)
}

func manyFiles(n int, dir string) string {
	return fmt.Sprintf("i=0; while [ $i -lt %d ]; do i=$((i+1)); >%s/$i; done", n, dir)
}

// held takes memory and keeps it: dd waits with a full block for somebody to read it. A kernel swaps no pages
// out that are zero: it lets them go (6.12, those of huge pages).
func held(megabytes int) string {
	return fmt.Sprintf("dd if=/dev/urandom bs=%d000000 count=1 2>/dev/null | sleep 100000 &", megabytes)
}

// heldSlowly takes memory and keeps it, 5 MB a second: the kernel kills who takes it faster than a slow disk
// takes what is swapped out.
func heldSlowly(megabytes int) string {
	return fmt.Sprintf("for i in $(seq %d); do %s sleep 1; done", megabytes/5, held(5))
}

// eat creates the pods on the test's node at once, past the scheduler, which keeps pods away from a node
// under pressure.
func (c *cluster) eat(eaters ...eater) {
	c.t.Helper()
	var pods []string
	for _, e := range eaters {
		pods = append(pods, e.json(c.node))
	}
	c.apply(fmt.Sprintf(`{"apiVersion": "v1", "kind": "List", "items": [%s]}`, strings.Join(pods, ",")))
}

func (e eater) json(node string) string {
	script := "trap 'exit 3' TERM\n" + e.script + "\necho done >/n/done; sleep 100000 & while :; do wait; " +
		"done"
	main := e.container("c", script)
	containers := map[string]any{"containers": []any{main}}
	if e.sidecar {
		main["name"] = "sidecar"
		main["restartPolicy"] = "Always"
		other := eater{}.container("c", "exec sleep 100000")
		containers = map[string]any{"initContainers": []any{main}, "containers": []any{other}}
	}

	dir := json.RawMessage("{}")
	if e.dir != "" {
		dir = json.RawMessage(e.dir)
	}

	spec := map[string]any{
		"nodeName":                      node,
		"restartPolicy":                 "Never",
		"terminationGracePeriodSeconds": max(e.grace, 2),
		"priorityClassName":             e.class,
		"volumes":                       []any{map[string]any{"name": "n", "emptyDir": dir}},
	}
	if e.tolerates {
		spec["tolerations"] = []any{map[string]any{"operator": "Exists"}}
	}

	maps.Copy(spec, containers)
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata":   map[string]any{"name": e.name},
		"spec":       spec,
	})
	if err != nil {
		panic(err)
	}

	return string(data)
}

func (e eater) container(name, script string) map[string]any {
	resources := map[string]any{}
	for key, text := range map[string]string{"limits": e.limit, "requests": e.request} {
		if text != "" {
			resources[key] = json.RawMessage(text)
		}
	}

	return map[string]any{
		"name":         name,
		"image":        "docker.io/library/busybox:1.37",
		"command":      []string{"sh", "-c", script},
		"resources":    resources,
		"volumeMounts": []any{map[string]any{"name": "n", "mountPath": "/n"}},
	}
}

// awaitEvicted waits until the pods are evicted, with a text in their messages.
func (c *cluster) awaitEvicted(text string, pods ...string) {
	c.t.Helper()
	const shown = "jsonpath={.status.phase} {.status.reason}: {.status.message}"
	for _, p := range pods {
		c.eventually(2*time.Minute, "eviction of "+p, func() error {
			got, err := c.try("get", "pod", p, "-o", shown)
			if err == nil && !strings.HasPrefix(got, "Failed Evicted: ") {
				err = errors.New(got)
			}

			return err
		})

		if got := c.kubectl("get", "pod", p, "-o", shown); !strings.Contains(got, text) {
			c.t.Errorf("pod %s: %q, want %q in it", p, got, text)
		}

		// An event may be seen after the status that it is about.
		c.eventually(time.Minute, "event of the eviction of "+p, func() error {
			if n := c.evictions(p); n != 1 {
				return fmt.Errorf("%d events Evicted, want one", n)
			}
			return nil
		})
	}
}

// evictions is how often a pod was evicted, by its events.
func (c *cluster) evictions(pod string) int {
	c.t.Helper()
	counts := c.kubectl("get", "events", "--field-selector=reason=Evicted,involvedObject.name="+pod,
		"-o", `jsonpath={range .items[*]}{.count}{"\n"}{end}`)
	all := 0
	for count := range strings.FieldsSeq(counts) {
		n, err := strconv.Atoi(count)
		if err != nil {
			c.t.Fatal(err)
		}

		all += n
	}

	return all
}

// awaitEaten waits until the pods have taken what they want.
func (c *cluster) awaitEaten(pods ...string) {
	c.t.Helper()
	for _, p := range pods {
		done := c.notes(p, "done")
		c.eventually(time.Minute, "what "+p+" takes", func() error {
			if done() == "" {
				return errors.New("it has not taken it")
			}
			return nil
		})
	}
}

// stayed checks that the pods run, and have never failed nor been restarted.
func (c *cluster) stayed(pods ...string) {
	c.t.Helper()
	for _, p := range pods {
		if got := c.kubectl("get", "pod", p, "-o", "jsonpath={.status.phase}"); got != "Running" {
			c.t.Errorf("pod %s is %s, want Running", p, got)
		}
		if n := c.evictions(p); n != 0 {
			c.t.Errorf("pod %s has %d events Evicted, want none", p, n)
		}
	}
	c.neverRestarted(pods...)
}

// pressed waits until a condition of the test's node and the taint that belongs to it are there, or not.
func (c *cluster) pressed(condition, taint string, want bool) {
	c.t.Helper()
	value := map[bool]string{true: "True", false: "False"}[want]
	c.kubectl("wait", "node/"+c.node, "--for=condition="+condition+"="+value, "--timeout=90s")
	c.eventually(time.Minute, "taint "+taint, func() error {
		taints, err := c.try("get", "node", c.node, "-o", "jsonpath={.spec.taints[*].key}")
		if err == nil && strings.Contains(taints, taint) != want {
			err = fmt.Errorf("taints %q, want %s: %v", taints, taint, want)
		}
		return err
	})
}
