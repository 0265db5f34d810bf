package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/patience"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/testenv"
)

// cluster is the one that is up, as a test sees it: two programs, and a namespace of the test's own.
type cluster struct {
	t         *testing.T
	root      string // of the checkout
	dir       string // state of the cluster
	namespace string
	node      string // where the pods of the test go
	agent     string // daemon names
	cri       string
	monitor   bool // there is a trivet-monitor
}

// open finds the cluster, makes a namespace for the test, and at its end removes it and looks for leaks on
// all nodes.
func open(t *testing.T) *cluster {
	t.Helper()
	if os.Getenv("TRIVET_E2E") == "" {
		t.Skip("runs on a cluster that is up, by make e2e (TRIVET_E2E is not set to its directory)")
	}

	testenv.Root(t)
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}

	c := &cluster{
		t:         t,
		root:      root,
		dir:       os.Getenv("TRIVET_E2E"),
		node:      "node1",
		namespace: strings.ToLower(strings.TrimPrefix(t.Name(), "Test")),
	}

	data, err := os.ReadFile(filepath.Join(c.dir, "cluster.json"))
	if err != nil {
		testenv.Skip(t, "needs a cluster that is up (make up): %v", err)
	}

	var plan struct {
		Nodes []struct{ Name, Agent, CRI string }
	}
	if err := json.Unmarshal(data, &plan); err != nil {
		t.Fatal(err)
	}

	first := plan.Nodes[0]
	c.node = first.Name
	c.agent, c.cri = first.Agent, first.CRI
	if c.agent == "trivet" {
		c.agent = "trivet-node"
	}
	if c.cri == "trivet" {
		c.cri, c.monitor = "trivet-cri", true
	}

	c.kubectl("create", "namespace", c.namespace)
	c.eventually(time.Minute, "service account", func() error {
		_, err := c.try("get", "serviceaccount", "default")
		return err
	})

	t.Cleanup(c.close)
	return c
}

// close starts and connects what a failed test has left dead or cut off, removes the namespace, and looks for
// leaks.
func (c *cluster) close() {
	_, _ = c.cluster("mend", c.node)
	for _, d := range []string{c.cri, c.agent} {
		_, _ = c.cluster("start", c.node, d)
	}

	_, _ = c.cluster("start", "control-plane", "kube-apiserver")
	c.awaitAPI()
	if c.t.Failed() {
		out, _ := c.try("get", "pods,events", "-o", "wide")
		c.t.Log(out)
	}

	c.kubectl("delete", "namespace", c.namespace, "--ignore-not-found", "--timeout=180s")
	if out, err := c.cluster("leaks", "--wait=60s"); err != nil {
		c.t.Errorf("after the test: %v: %s", err, out)
	}
}

func (c *cluster) run(limit time.Duration, stdin, name string, args ...string) (string, error) {
	limit = patience.Of(limit)
	// Not the test's context, which is over in clean-ups.
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()

	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Stdin = c.root, strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.dir+"/kubeconfig", "KUBECACHEDIR="+c.dir+"/kubectl-cache")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s",
			filepath.Base(name), strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}

	return out.String(), nil
}

// try calls kubectl in the test's namespace.
func (c *cluster) try(args ...string) (string, error) {
	return c.kubectlWith("", args...)
}

func (c *cluster) kubectlWith(stdin string, args ...string) (out string, err error) {
	kubectl := filepath.Join(c.root, ".trivet/bin/kubectl")
	args = append([]string{"--namespace=" + c.namespace}, patience.OfArgs(args)...)

	// An emulated API server may take longer for a handshake than kubectl waits. Nothing was asked yet.
	for range 3 {
		out, err = c.run(4*time.Minute, stdin, kubectl, args...)
		if err == nil || !strings.Contains(err.Error(), "TLS handshake timeout") {
			break
		}
	}

	return out, err
}

// kubectl returns what the command prints; the test ends when it fails.
func (c *cluster) kubectl(args ...string) string {
	c.t.Helper()
	out, err := c.try(args...)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// apply creates objects from YAML. Validation would have kubectl read the whole schema first.
func (c *cluster) apply(yaml string) {
	c.t.Helper()
	if _, err := c.kubectlWith(yaml, "apply", "--validate=ignore", "-f", "-"); err != nil {
		c.t.Fatal(err)
	}
}

// cluster calls trivet-cluster with a verb and its arguments.
func (c *cluster) cluster(args ...string) (string, error) {
	program := filepath.Join(c.root, "bin/trivet-cluster")
	return c.run(5*time.Minute, "", program, slices.Insert(args, 1, "--dir="+c.dir)...)
}

// do calls trivet-cluster (kill, start, cut, mend, reboot); the test ends when it fails.
func (c *cluster) do(args ...string) {
	c.t.Helper()
	if out, err := c.cluster(args...); err != nil {
		c.t.Fatalf("%v %s", err, out)
	}
}

// eventually waits for something that has no kubectl wait. It also works in clean-ups, when the context of
// the test is over.
func (c *cluster) eventually(limit time.Duration, what string, look func() error) {
	c.t.Helper()
	limit = patience.Of(limit)
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()

	const interval = 100 * time.Millisecond
	err := retry.Until(ctx, retry.Backoff{First: interval, Max: interval},
		func(context.Context) error { return look() })
	if err != nil {
		c.t.Fatalf("%s: not within %s: %v", what, limit, err)
	}
}

// awaitAPI waits until the API server answers.
func (c *cluster) awaitAPI() {
	c.t.Helper()
	c.eventually(time.Minute, "API server", func() error {
		_, err := c.try("get", "--raw=/readyz")
		return err
	})
}

func (c *cluster) awaitReady(limit time.Duration, pods ...string) {
	c.t.Helper()
	args := []string{"wait", "--for=condition=Ready", "--timeout=" + limit.String()}
	for _, p := range pods {
		args = append(args, "pod/"+p)
	}
	c.kubectl(args...)
}

// pod runs a shell script in a container on the test's node. The script has a directory /n, which the test
// can read (notes). It ends at once on SIGTERM if the script lets it.
func (c *cluster) pod(name, script string) {
	c.t.Helper()
	const pod = `{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": %q}, "spec": {"nodeName": %q,
		"terminationGracePeriodSeconds": 2, "volumes": [{"name": "n", "emptyDir": {}}], "containers": [
		{"name": "c", "image": "docker.io/trivet/demo:1", "command": ["sh", "-c", %q],
		"volumeMounts": [{"name": "n", "mountPath": "/n"}]}]}}`
	c.apply(fmt.Sprintf(pod, name, c.node, "trap 'exit 0' TERM; "+script))
}

// notes returns a function that reads a file of a pod's /n on its node: what the pod does can be seen while
// the API server, the agent or the CRI server is dead.
func (c *cluster) notes(pod, file string) func() string {
	c.t.Helper()
	uid := c.kubectl("get", "pod", pod, "-o", "jsonpath={.metadata.uid}")
	path := "/var/lib/kubelet/pods/" + uid + "/volumes/kubernetes.io~empty-dir/n/" + file
	return func() string {
		c.t.Helper()
		return c.onNode("", "cat %s 2>/dev/null || true", path)
	}
}

// onNode runs a shell script on the test's node.
func (c *cluster) onNode(stdin, script string, args ...any) string {
	c.t.Helper()
	out, err := c.run(time.Minute, stdin, c.root+"/bin/trivet-cluster", "exec", "--dir="+c.dir, c.node,
		"sh", "-c", fmt.Sprintf(script, args...))
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// counter prints line 1, line 2, ... five times a second, and notes the last number.
const counter = `i=0; while :; do i=$((i+1)); echo line $i; echo $i >/n/count; sleep 0.2; done`

// awaitLines waits until a counter has printed n lines more.
func (c *cluster) awaitLines(count func() string, n int) {
	c.t.Helper()
	first := 0
	c.eventually(time.Minute, fmt.Sprintf("%d lines more", n), func() error {
		now, err := strconv.Atoi(strings.TrimSpace(count()))
		if err != nil {
			return err
		}
		if first == 0 {
			first = now
		}
		if now < first+n {
			return fmt.Errorf("it counts %d, and began at %d", now, first)
		}

		return nil
	})
}

// counted checks that the log of a counter has every line exactly once, and returns how many there are.
func (c *cluster) counted(pod string) int {
	c.t.Helper()
	n := 0
	for line := range strings.Lines(c.kubectl("logs", pod)) {
		n++
		if want := fmt.Sprintf("line %d\n", n); line != want {
			c.t.Fatalf("line %d of the log is %q, want %q: a line was lost or came twice", n, line, want)
		}
	}
	return n
}

// restarts of the pod's only container.
func (c *cluster) restarts(pod string) string {
	c.t.Helper()
	return c.kubectl("get", "pod", pod, "-o", "jsonpath={.status.containerStatuses[0].restartCount}")
}

// neverRestarted checks that the only container of each pod is its first instance.
func (c *cluster) neverRestarted(pods ...string) {
	c.t.Helper()
	for _, p := range pods {
		if n := c.restarts(p); n != "0" {
			last := c.kubectl("get", "pod", p, "-o", "jsonpath={.status.containerStatuses[0].lastState}")
			c.t.Errorf("pod %s: its container was restarted %s times; before: %s", p, n, last)
		}
	}
}
