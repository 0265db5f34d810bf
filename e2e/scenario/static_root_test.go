package scenario

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// manifests is where the nodes' static pods are; what these write is in a directory of the node.
const (
	manifests = "/etc/kubernetes/manifests"
	traces    = "/var/log/trivet-static"
)

// static writes the manifest of a pod, without the API server's help. The pod notes each start of its
// container, and the time as long as it runs. It stops slowly: what replaces it has to wait.
func (c *cluster) static(name, note string) {
	c.t.Helper()
	script := fmt.Sprintf(`echo start %[2]s >>/t/%[1]s; trap 'sleep 2; echo end %[2]s >>/t/%[1]s; exit 0' TERM
		while :; do date +%%s >/t/%[1]s.now; sleep 0.2; done`, name, note)
	data, err := json.Marshal(map[string]any{
		"apiVersion": "v1",
		"kind":       "Pod",
		"metadata": map[string]any{
			"name":        name,
			"namespace":   c.namespace,
			"annotations": map[string]string{"note": note},
		},
		"spec": map[string]any{
			"hostNetwork":                   true,
			"madeUpField":                   true,
			"terminationGracePeriodSeconds": 10,
			"containers": []any{map[string]any{
				"name":         "c",
				"image":        "docker.io/trivet/demo:1",
				"command":      []string{"sh", "-c", script},
				"volumeMounts": []any{map[string]string{"name": "t", "mountPath": "/t"}},
			}},
			"volumes": []any{map[string]any{
				"name": "t", "hostPath": map[string]string{"path": traces, "type": "DirectoryOrCreate"},
			}},
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}

	c.onNode(string(data), "mkdir -p %[1]s && cat >%[1]s/.new && mv %[1]s/.new %[1]s/%[2]s.yaml",
		manifests, name)
}

// noStatics removes all static pods at the end of a test.
func (c *cluster) noStatics() {
	c.onNode("", "rm -rf %s/*", manifests)
	c.eventually(time.Minute, "mirrors gone", func() error {
		if out := c.kubectl("get", "pods", "-o", "name"); strings.Contains(out, c.node) {
			return errors.New(out)
		}
		return nil
	})
	c.onNode("", "rm -rf %s", traces)
}

// runsStatic waits until a static pod has written the time after a moment.
func (c *cluster) runsStatic(name string, after time.Time) {
	c.t.Helper()
	c.eventually(time.Minute, "static pod "+name, func() error {
		now := strings.TrimSpace(c.onNode("", "cat %s/%s.now 2>/dev/null || true", traces, name))

		// Both have ten digits.
		if now <= fmt.Sprint(after.Unix()) {
			return fmt.Errorf("it wrote %q at last", now)
		}
		return nil
	})
}

// note waits until the mirror of a static pod is Running with the note.
func (c *cluster) note(name, want string) {
	c.t.Helper()
	c.eventually(time.Minute, "mirror of "+name, func() error {
		const shown = "jsonpath={.status.phase} {.metadata.annotations.note}"
		got, err := c.try("get", "pod", name+"-"+c.node, "-o", shown)
		if err == nil && got != "Running "+want {
			err = fmt.Errorf("it is %q, want Running %s", got, want)
		}
		return err
	})
}

func TestStaticPodsNeedNoAPIServer(t *testing.T) {
	c := open(t)
	t.Cleanup(c.noStatics)
	c.static("kept", "1")
	c.static("changed", "1")
	c.static("removed", "1")
	for _, name := range []string{"kept", "changed", "removed"} {
		c.note(name, "1")
	}

	c.do("kill", "control-plane", "kube-apiserver")
	c.do("kill", c.node, c.agent)
	c.static("changed", "2")
	c.static("new", "1")
	c.onNode("", "rm %s/removed.yaml", manifests)
	c.do("start", c.node, c.agent)
	for _, name := range []string{"kept", "changed", "new"} {
		c.runsStatic(name, time.Now())
	}

	c.eventually(time.Minute, "order of a changed pod's containers", func() error {
		if got := c.onNode("", "cat %s/changed", traces); got != "start 1\nend 1\nstart 2\n" {
			return errors.New(got)
		}

		return nil
	})

	c.do("start", "control-plane", "kube-apiserver")
	c.awaitAPI()

	c.note("kept", "1")
	c.note("changed", "2")
	c.note("new", "1")
	c.kubectl("wait", "--for=delete", "pod/removed-"+c.node, "--timeout=60s")
	if got := c.onNode("", "cat %s/kept", traces); got != "start 1\n" {
		t.Errorf("the pod whose manifest stayed: %q", got)
	}
}

func TestMirrorsFollowTheirManifests(t *testing.T) {
	c := open(t)
	t.Cleanup(c.noStatics)
	c.static("web", "1")
	c.note("web", "1")
	uid := c.kubectl("get", "pod", "web-"+c.node, "-o", "jsonpath={.metadata.uid}")
	c.kubectl("delete", "pod", "web-"+c.node, "--wait=false")
	c.eventually(time.Minute, "mirror made again", func() error {
		got, err := c.try("get", "pod", "web-"+c.node, "-o", "jsonpath={.metadata.uid}")
		if err == nil && got == uid {
			err = errors.New("it is the same")
		}

		return err
	})

	c.note("web", "1")
	c.onNode("", "rm %s/web.yaml", manifests)
	c.kubectl("wait", "--for=delete", "pod/web-"+c.node, "--timeout=60s")
}

func TestAgentsAreExchangedUnderRunningPods(t *testing.T) {
	c := open(t)
	own, other := "trivet", "kubelet"
	if c.agent == "kubelet" {
		own, other = "kubelet", "trivet"
	}

	t.Cleanup(func() { c.do("agent", c.node, own) })
	t.Cleanup(c.noStatics)
	c.static("etcd", "1")
	c.note("etcd", "1")
	c.pod("counter", counter)
	c.awaitReady(time.Minute, "counter")

	containers := func() string {
		const each = `{.metadata.name} {.status.containerStatuses[0].containerID}{"\n"}`
		return c.kubectl("get", "pods", "-o", "jsonpath={range .items[*]}"+each+"{end}")
	}

	before := containers()
	for _, agent := range []string{other, own} {
		c.do("agent", c.node, agent)

		// The new agent works.
		c.pod("after-"+agent, counter)
		c.awaitReady(time.Minute, "after-"+agent, "counter", "etcd-"+c.node)
		c.kubectl("delete", "pod", "after-"+agent)
		if after := containers(); after != before {
			t.Errorf("containers with %s in the seat:\n%s\nbefore:\n%s", agent, after, before)
		}
	}

	if got := c.onNode("", "cat %s/etcd", traces); got != "start 1\n" {
		t.Errorf("the static pod: %q", got)
	}

	c.neverRestarted("counter", "etcd-"+c.node)
}
