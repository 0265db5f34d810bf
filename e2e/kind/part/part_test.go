package part

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
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

var files = Files{Deploy: "../../../deploy"}

func TestNodeIsLabelledAndItsInstallerHeard(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"annotations": `|{"state": "v1"}|`,
		"get node n1": "True trivet-cri://v1",
		"get pods":    "kube-system/kube-proxy=True\n",
	}}
	p := CRI{Cluster: c, Files: files, Node: "n1"}
	if err := p.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.inOrder(t,
		"kubectl apply -k ../../../deploy/cri",
		"kubectl label --overwrite node n1 trivet.dev/cri=",
		"installer\\.trivet\\.dev/cri-trial",
		"containerRuntimeVersion",
	)

	c.answers["annotations"] = "||abc cri (v1): v1 has the seat"
	if said, err := p.Installed(t.Context()); err != nil || !strings.Contains(said, "has the seat") {
		t.Errorf("said %q, %v", said, err)
	}
	c.answers["annotations"] = "||abc cri (v1): before; v1 was taken back: why"
	if _, err := p.Installed(t.Context()); err == nil || !strings.Contains(err.Error(), "taken back: why") {
		t.Errorf("error %v", err)
	}
}

// TestPartIsInUseWhenTheNodeIs is of what is seen of a node on the way in and on the way out.
func TestPartIsInUseWhenTheNodeIs(t *testing.T) {
	c := &cluster{answers: map[string]string{}}
	i := installer{cluster: c, node: "n1", name: "cri"}
	for seen, want := range map[string]state{
		"":                    {},
		"||":                  {},
		`{"by": "cri"}||`:     {cordoned: true},
		`|{"state": "x"}|old`: {trial: "x", said: "old"},
		"||x has | the seat":  {said: "x has | the seat"},
	} {
		c.answers["annotations"] = seen
		if got, err := i.look(t.Context()); err != nil || got != want {
			t.Errorf("%q: %+v, %v, want %+v", seen, got, err, want)
		}
	}
}

// TestTrialOfTheInstallIsNotThatOfTheRemoval is of a label that is taken away while the part is on trial.
func TestTrialOfTheInstallIsNotThatOfTheRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{answers: map[string]string{"annotations": `|{"state": "v1"}|`}}
		i := installer{cluster: c, node: "n1", name: "cri"}
		if err := i.remove(t.Context()); err == nil {
			t.Error("the node is in use with the part")
		}

		c.answers["annotations"] = `|{"state": "what was there before"}|old`
		if err := i.remove(t.Context()); err != nil {
			t.Error(err)
		}
		c.answers["annotations"] = `|{"state": "what was there before"}|`
		if err := i.awaitUse(t.Context()); err == nil {
			t.Error("the node is in use without the part")
		}
	})
}

func TestInstallerStaysWhileAnotherNodeHasThePart(t *testing.T) {
	c := &cluster{answers: map[string]string{
		"get nodes":               "node/n2\n",
		"containerRuntimeVersion": "True containerd://2",
	}}
	p := CRI{Cluster: c, Files: files, Node: "n1"}
	if err := errors.Join(p.Remove(t.Context()), p.Removed(t.Context())); err != nil {
		t.Fatal(err)
	}
	for _, call := range c.calls {
		if strings.Contains(call, "delete") {
			t.Errorf("call %q", call)
		}
	}
}

func TestContainerThatASwapRestartsIsAnError(t *testing.T) {
	c := &restarting{cluster: &cluster{answers: map[string]string{"annotations": "||done"}}}
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
			if strings.Contains(call, "trivet.dev/node=") {
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
		"kind: Deployment",
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

func TestNodeIsRestartedWhenItsPodsAre(t *testing.T) {
	since := time.Date(2026, time.January, 1, 10, 0, 0, 5e8, time.UTC)
	for pods, want := range map[string]string{
		"":                              "",
		"a True 2026-01-01T10:00:00Z\n": "",
		"a True 2026-01-01T09:59:59Z\n": "as before: a",
		"a True 2026-01-01T10:00:01Z\nb False 2026-01-01T10:00:01Z\n": "not Ready: b",
		"a True\n": "not Ready: a",
	} {
		c := &cluster{answers: map[string]string{"get pods": pods}}
		err := IsRestarted(t.Context(), c, since)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", pods, err, want)
		}
	}
}

func TestProofOfAPartMayBeShorter(t *testing.T) {
	c := &cluster{answers: map[string]string{"kustomize": "      - --part=cri\n      env:\n"}}
	i := installer{
		cluster: c,
		files:   files,
		name:    "cri",
		prove:   "20s",
	}
	if err := i.apply(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.index(t, "apply -f -      - --part=cri\n      - --prove=20s\n      env:\n")

	c.answers["kustomize"] = "a DaemonSet without it"
	if err := i.apply(t.Context()); err == nil {
		t.Error("no error")
	}
}
