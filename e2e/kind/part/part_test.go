package part

import (
	"context"
	"fmt"
	"strings"
	"testing"
)

// cluster answers calls from a table, and keeps them.
type cluster struct {
	calls []string

	// answers are by a part of the call; the longest that fits wins.
	answers map[string]string
}

func (c *cluster) answer(call string) (string, error) {
	c.calls = append(c.calls, call)
	var key string
	for k := range c.answers {
		if strings.Contains(call, k) && len(k) > len(key) {
			key = k
		}
	}

	if text, failed := strings.CutPrefix(c.answers[key], "error: "); failed {
		return "", fmt.Errorf("%s", text)
	}
	return c.answers[key], nil
}

func (c *cluster) Kubectl(_ context.Context, stdin string, args ...string) (string, error) {
	return c.answer("kubectl " + strings.Join(args, " ") + stdin)
}

func (c *cluster) OnNode(_ context.Context, node, script string) (string, error) {
	return c.answer(node + ": " + strings.Join(strings.Fields(script), " "))
}

func (c *cluster) Copy(_ context.Context, node, file, path string) error {
	_, err := c.answer("copy " + file + " to " + node + ":" + path)
	return err
}

// index is where the first call that has the text is; the test fails without one.
func (c *cluster) index(t *testing.T, text string) int {
	t.Helper()
	for i, call := range c.calls {
		if strings.Contains(call, text) {
			return i
		}
	}
	t.Errorf("no call has %q:\n%s", text, strings.Join(c.calls, "\n"))
	return -1
}

// inOrder checks that calls with these texts were made one after the other.
func (c *cluster) inOrder(t *testing.T, texts ...string) {
	t.Helper()
	before := -1
	for _, text := range texts {
		at := c.index(t, text)
		if at < before {
			t.Errorf("%q was too early:\n%s", text, strings.Join(c.calls, "\n"))
		}
		before = at
	}
}

var files = Files{Deploy: "../../../deploy", Programs: "/programs"}

func TestPodsLeaveARuntimeBeforeItStops(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"get node n1": "True containerd://2",
		"get pods":    "kube-system/kube-proxy=True\n",
		"uncordon n1": "error: stop here",
	}}
	err := CRI{Cluster: c, Files: files, Node: "n1"}.Install(t.Context())
	if err == nil || !strings.Contains(err.Error(), "stop here") {
		t.Fatalf("error %v", err)
	}

	c.inOrder(t,
		"copy /programs/trivet-cri to n1:/usr/local/bin/trivet-cri",
		"kubectl cordon n1",
		"crictl --runtime-endpoint=unix:///run/containerd/containerd.sock --timeout=60s rmp --all --force",
		"systemctl disable --now containerd",
		"containerRuntimeEndpoint: unix:///run/trivet/cri.sock",
		"kubectl uncordon n1",
	)
}

func TestRuntimeThatIsInItsSeatIsLeftAlone(t *testing.T) {
	ours := &cluster{answers: map[string]string{"get node n1": "True trivet-cri://v1"}}
	if err := (CRI{Cluster: ours, Node: "n1"}).Install(t.Context()); err != nil {
		t.Error(err)
	}

	theirs := &cluster{answers: map[string]string{"get node n1": "True containerd://2"}}
	if err := (CRI{Cluster: theirs, Node: "n1"}).Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if len(ours.calls) != 1 || len(theirs.calls) != 1 {
		t.Errorf("calls %v, %v", ours.calls, theirs.calls)
	}
}

func TestSwapThatWasCutOffIsFinished(t *testing.T) {
	for _, state := range []string{"True true trivet-cri://v1", "False trivet-cri://v1", ""} {
		c := &cluster{answers: map[string]string{"get node n1": state, "cordon n1": "error: stop here"}}
		if err := (CRI{Cluster: c, Files: files, Node: "n1"}).Install(t.Context()); err == nil {
			t.Errorf("node %q was taken for one that has it", state)
		}
	}
}

func TestContainerThatASwapRestartsIsAnError(t *testing.T) {
	c := &restarting{cluster: &cluster{answers: map[string]string{}}}
	err := Agent{Cluster: c, Files: files, Node: "n1"}.Install(t.Context())
	if err == nil || !strings.Contains(err.Error(), "default/web/app of node n1 was cri://1, is cri://2") {
		t.Errorf("error %v", err)
	}
}

func TestDropInDecidesWhichAgentRuns(t *testing.T) {
	c := &cluster{answers: map[string]string{}}
	p := DropIn{Cluster: c, Node: "n1"}
	for _, turn := range []struct {
		do   func(context.Context) error
		want string
	}{
		{p.Remove, "mv " + NodeDropIn + " " + NodeDropIn + ".off systemctl daemon-reload"},
		{p.Install, "mv " + NodeDropIn + ".off " + NodeDropIn + " systemctl daemon-reload"},
	} {
		c.calls = nil
		if err := turn.do(t.Context()); err != nil {
			t.Fatal(err)
		}
		c.inOrder(t, "containerStatuses", turn.want, "healthz", "wait --for=condition=Ready node/n1")
	}
}

// restarting has a container whose ID changes when its node's agent does.
type restarting struct{ *cluster }

func (r *restarting) Kubectl(ctx context.Context, stdin string, args ...string) (string, error) {
	if strings.Contains(strings.Join(args, " "), "containerStatuses") {
		for _, call := range r.calls {
			if strings.Contains(call, "systemctl restart kubelet") {
				return "app@cri://2 default/web\n", nil
			}
		}
		return "app@cri://1 default/web\n", nil
	}
	return r.cluster.Kubectl(ctx, stdin, args...)
}

func TestDriversHaveAShareOfTheDisk(t *testing.T) {
	text, err := CSI{Files: files, PoolSize: "10Gi"}.daemonset()
	if err != nil {
		t.Fatal(err)
	}

	const want = "            - --node-name=$(NODE_NAME)\n            - --pool-size=10Gi\n"
	if !strings.Contains(text, want) {
		t.Errorf("DaemonSet:\n%s", text)
	}
}

func TestDriversRunUntilTheirCapacitiesAreGone(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"jsonpath={.items[*].metadata.name}": "n1 n2",
		"annotate":                           "error: stop here",
	}}
	if err := (CSI{Cluster: c, Files: files}).Remove(t.Context()); err == nil {
		t.Fatal("no error")
	}

	c.inOrder(t,
		"csi/storageclasses.yaml",
		"get csistoragecapacities",
		"csi/daemonset.yaml",
		"get pods",
		"n1: pool=/var/lib/trivet/csi/pool",
		"n2: pool=/var/lib/trivet/csi/pool",
	)
}

func TestNetworkLeavesNothingOnNodes(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"jsonpath={.items[*].metadata.name}": "n1 n2",
		"conditions":                         "n1=False\nn2=Unknown\n",
	}}
	if err := (CNI{Cluster: c, Files: files}).Remove(t.Context()); err != nil {
		t.Fatal(err)
	}

	c.inOrder(t,
		"cni/daemonset.yaml",
		"get pods",
		"n1: rm -f /etc/cni/net.d/10-trivet.conflist; ip route flush proto 117",
		"n2: rm -f /etc/cni/net.d/10-trivet.conflist; ip route flush proto 117",
		"conditions",
	)
}

func TestNodeThatIsStillReadyIsNamed(t *testing.T) {
	c := &cluster{answers: map[string]string{"get nodes": "n1=False\nn2=True\n"}}
	err := CNI{Cluster: c}.unready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "n2=True") {
		t.Errorf("error %v", err)
	}
}
