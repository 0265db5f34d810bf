package nodestatus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/node/nodestatus"
	"github.com/trivet-node/trivet/node/runtime"
)

// fakeRuntime is a container runtime that a test switches on and off.
type fakeRuntime struct {
	// mu guards the rest.
	mu    sync.Mutex
	down  bool
	image string
	looks int
	cidrs []string
}

func (f *fakeRuntime) Info(context.Context) (runtime.Info, error) {
	f.mu.Lock()
	defer f.mu.Unlock()

	f.looks++
	if f.down {
		return runtime.Info{}, errors.New("connection refused")
	}

	return runtime.Info{
		Name:         "test",
		Version:      "1",
		RuntimeReady: true,
		NetworkReady: true,
	}, nil
}

func (f *fakeRuntime) ImageDir(context.Context) (string, error) { return "", errors.New("unknown") }

func (f *fakeRuntime) UpdatePodCIDR(_ context.Context, cidrs string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cidrs = append(f.cidrs, cidrs)
	return nil
}

func (f *fakeRuntime) set(down bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.down = down
}

func (f *fakeRuntime) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.looks
}

func (f *fakeRuntime) given() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.cidrs)
}

// events are the reasons that were recorded.
type events struct {
	// mu guards reasons.
	mu      sync.Mutex
	reasons []string
}

func (e *events) Record(_ v1.ObjectReference, _, reason, _ string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reasons = append(e.reasons, reason)
}

func (e *events) all() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.reasons)
}

// node is a node of a server, with its reporter.
type node struct {
	*nodestatus.Reporter
	t       *testing.T
	server  *kubetest.Server
	runtime *fakeRuntime
	events  *events
}

func newNode(t *testing.T, server *kubetest.Server, change func(*nodestatus.Config)) node {
	t.Helper()
	cfg := nodestatus.Config{
		Name:            "n",
		Hostname:        "n",
		IPs:             []string{"192.0.2.7"},
		Labels:          map[string]string{"zone": "a"},
		Register:        true,
		Version:         "v1.37.2-trivet",
		RootDir:         t.TempDir(),
		MaxPods:         110,
		MaxImages:       50,
		ReportFrequency: time.Hour,
		CheckFrequency:  time.Millisecond,
		Log:             slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&cfg)
	}

	n := node{
		t:       t,
		server:  server,
		runtime: &fakeRuntime{},
		events:  &events{},
	}

	n.Reporter = nodestatus.New(cfg, kube.Nodes(server.Client()), n.runtime, n.events)
	return n
}

// start runs the reporter until the test ends.
func (n node) start() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(n.t.Context()))
	var running sync.WaitGroup
	running.Go(func() { n.Run(ctx) })
	n.t.Cleanup(func() {
		cancel()
		running.Wait()
	})
}

func (n node) stored() *v1.Node { return kubetest.Get[v1.Node](n.server, "nodes", "", "n") }

// await waits until something is so.
func (n node) await(what string, is func() bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 20*time.Second)
	defer cancel()
	for range retry.Every(ctx, time.Millisecond) {
		if is() {
			return
		}
	}
	n.t.Fatalf("%s: not so; the Node is %+v", what, n.stored())
}

func readyOf(n *v1.Node) v1.ConditionStatus {
	if n == nil {
		return ""
	}
	for _, c := range n.Status.Conditions {
		if c.Type == v1.NodeReady {
			return c.Status
		}
	}
	return ""
}

func TestANodeIsRegisteredWithWhatItIs(t *testing.T) {
	n := newNode(t, kubetest.Start(t), nil)
	if known := n.Known(); known.Labels["zone"] != "a" || n.Node() != nil {
		t.Errorf("before: known %+v", known)
	}

	n.start()
	<-n.Registered()
	got := n.stored()
	if got.Labels["zone"] != "a" || got.Labels[v1.LabelHostname] != "n" || readyOf(got) != v1.ConditionTrue {
		t.Errorf("registered %+v", got)
	}
	if pods := got.Status.Allocatable[v1.ResourcePods]; pods.Value() != 110 {
		t.Errorf("%s pods", pods.String())
	}
	if got.Status.NodeInfo.ContainerRuntimeVersion != "test://1" {
		t.Errorf("info %+v", got.Status.NodeInfo)
	}
	if n.Node().UID != got.UID {
		t.Error("the Node is not known")
	}
}

func TestRegistrationIsTriedUntilTheServerAnswers(t *testing.T) {
	server := kubetest.Start(t)
	server.FailOn("create nodes", 2, apierrors.NewServiceUnavailable("starting"))
	n := newNode(t, server, nil)
	n.start()
	n.await("registered", func() bool { return n.stored() != nil })
}

func TestANodeThatIsThereIsTakenOverAndItsLabelsAreCorrected(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{
			Name:   "n",
			UID:    "first",
			Labels: map[string]string{"zone": "old", "by": "somebody"},
		},
		Spec: v1.NodeSpec{PodCIDRs: []string{"10.0.0.0/24"}},
	})

	n := newNode(t, server, nil)
	n.start()
	<-n.Registered()
	got := n.stored()
	if got.UID != "first" || got.Labels["zone"] != "a" || got.Labels["by"] != "somebody" {
		t.Errorf("taken over %+v", got.ObjectMeta)
	}

	n.await("the runtime has the pod CIDRs", func() bool {
		return slices.Equal(n.runtime.given(), []string{"10.0.0.0/24"})
	})
	n.await("the status is reported", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })
}

func TestANodeThatMayNotRegisterWaitsForItsObject(t *testing.T) {
	server := kubetest.Start(t)
	n := newNode(t, server, func(cfg *nodestatus.Config) { cfg.Register = false })
	n.start()
	n.await("it looks for its object", func() bool {
		return slices.Contains(server.Calls(), "get nodes n")
	})
	server.Put(&v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}})
	<-n.Registered()
	if slices.Contains(server.Calls(), "create nodes") || n.stored().Labels["zone"] != "" {
		t.Error("it created or changed the object")
	}
}

func TestAChangeIsReportedAtOnceAndNothingElseIs(t *testing.T) {
	server := kubetest.Start(t)
	n := newNode(t, server, nil)
	n.runtime.set(true)
	n.start()
	<-n.Registered()
	if got := readyOf(n.stored()); got != v1.ConditionFalse {
		t.Errorf("registered without a runtime: ready %s", got)
	}

	n.runtime.set(false)
	n.await("ready", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })
	n.await("announced", func() bool { return slices.Equal(n.events.all(), []string{"NodeReady"}) })
	sent := func() int {
		return len(slices.DeleteFunc(server.Calls(), func(call string) bool {
			return call != "patch nodes/status n"
		}))
	}

	before, looks := sent(), n.runtime.count()
	n.await("more looks", func() bool { return n.runtime.count() > looks+20 })
	if after := sent(); after != before {
		t.Errorf("an unchanged status was sent %d times", after-before)
	}

	n.runtime.set(true)
	n.await("not ready", func() bool { return readyOf(n.stored()) == v1.ConditionFalse })
	n.await("announced", func() bool {
		return slices.Equal(n.events.all(), []string{"NodeReady", "NodeNotReady"})
	})
}

func TestANodeThatSomebodyDeletedIsRegisteredAgain(t *testing.T) {
	server := kubetest.Start(t)
	n := newNode(t, server, func(cfg *nodestatus.Config) { cfg.CheckFrequency = time.Hour })
	n.start()
	<-n.Registered()
	first := n.stored().UID
	server.Remove("nodes", "", "n")
	n.await("registered again", func() bool {
		again := n.stored()
		return again != nil && again.UID != first && n.Node().UID == again.UID
	})
}

func TestWhatOthersWriteIntoTheNodeIsSeenAtOnce(t *testing.T) {
	server := kubetest.Start(t)
	n := newNode(t, server, func(cfg *nodestatus.Config) { cfg.CheckFrequency = time.Hour })
	n.start()
	<-n.Registered()
	changed := n.stored()
	changed.Spec.PodCIDRs = []string{"10.0.1.0/24", "2001:db8::/64"}
	changed.Labels["new"] = "label"
	server.Put(changed)
	n.await("the runtime has the pod CIDRs", func() bool {
		return slices.Contains(n.runtime.given(), "10.0.1.0/24,2001:db8::/64")
	})
	if n.Known().Labels["new"] != "label" {
		t.Errorf("labels %v", n.Known().Labels)
	}
}

func TestConditionsOfOthersStay(t *testing.T) {
	server := kubetest.Start(t)
	existing := &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}}
	existing.Status.Conditions = []v1.NodeCondition{{Type: "Problem", Status: v1.ConditionTrue}}
	existing.Status.Addresses = []v1.NodeAddress{{Type: v1.NodeInternalIP, Address: "198.51.100.1"}}
	server.Put(existing)
	n := newNode(t, server, nil)
	n.start()
	n.await("reported", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })
	got := n.stored().Status
	if !slices.ContainsFunc(got.Conditions, func(c v1.NodeCondition) bool { return c.Type == "Problem" }) {
		t.Errorf("conditions %v", got.Conditions)
	}

	want := []v1.NodeAddress{
		{Type: v1.NodeInternalIP, Address: "192.0.2.7"},
		{Type: v1.NodeHostName, Address: "n"},
	}
	if !slices.Equal(got.Addresses, want) {
		t.Errorf("addresses %v", got.Addresses)
	}

	for _, call := range server.Calls() {
		if strings.HasPrefix(call, "update nodes") {
			t.Errorf("the whole object was written: %s", call)
		}
	}
}

// Pods that were bound because of a label are refused for good if they are judged without it.
func TestRefreshIsNoOlderThanTheQuestion(t *testing.T) {
	var asked atomic.Int32
	first, answer := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)

		// it has read the Node before that got the label
		if n == 1 {
			close(first)
			<-answer
		}

		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind":"Node","apiVersion":"v1","metadata":{"name":"n","resourceVersion":"%d",`+
			`"labels":{"answer":"%d"}}}`, n, n)
	}))
	defer server.Close()

	client, err := kube.New(kube.At(server.URL))
	if err != nil {
		t.Fatal(err)
	}

	cfg := nodestatus.Config{Name: "n", Log: slog.New(slog.DiscardHandler)}
	r := nodestatus.New(cfg, kube.Nodes(client), nil, nil)

	var running sync.WaitGroup
	running.Go(func() { r.Refresh(t.Context()) })
	<-first
	for range 10 {
		running.Go(func() {
			r.Refresh(t.Context())
			if got := r.Known().Labels["answer"]; got < "2" {
				t.Errorf("judged by answer %q", got)
			}
		})
	}

	close(answer)
	running.Wait()
}

func TestARefreshThatFailsLeavesTheKnownNode(t *testing.T) {
	server := kubetest.Start(t)
	n := newNode(t, server, nil)
	n.start()
	<-n.Registered()
	server.FailOn("get nodes", -1, apierrors.NewServiceUnavailable("gone"))
	n.Refresh(t.Context())
	if n.Known().Labels["zone"] != "a" {
		t.Errorf("known %+v", n.Known())
	}
}
