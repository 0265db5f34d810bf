package attend

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/trivet-node/trivet/installer/drain"
	"github.com/trivet-node/trivet/installer/swap"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

const (
	ours  swap.State = "v1-abc"
	label            = "trivet.dev/cri"
)

// host is a machine that carries out orders as the test says.
type host struct {
	t      *testing.T
	folder swap.Folder

	mu       sync.Mutex
	launched []string
	swept    []swap.State
	gone     bool
}

func (h *host) Stage() (swap.State, error) { return ours, nil }

func (h *host) Sweep(keep ...swap.State) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.swept, h.gone = keep, len(keep) == 0
	if h.gone {
		return h.folder.Forget()
	}
	return nil
}

func (h *host) Launch(context.Context, swap.State) error {
	order, err := h.folder.Order()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.launched = append(h.launched, order.ID)
	return err
}

func (h *host) Idle(context.Context) (bool, error) { return true, nil }

// does writes what the machine has done with the last order.
func (h *host) does(phase swap.Phase, failure string) {
	h.t.Helper()
	order, err := h.folder.Order()
	if err != nil {
		h.t.Fatal(err)
	}
	before, err := h.folder.Record()
	if err != nil {
		h.t.Fatal(err)
	}

	record := swap.Record{
		Order:    order,
		From:     before.State(),
		Phase:    phase,
		Stopped:  time.Now().Add(-3 * time.Second),
		Switched: time.Now().Add(-time.Second),
		Failure:  failure,
	}
	if before.Order.ID == order.ID {
		record.From = before.From
	}

	data, err := json.Marshal(record)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(h.folder.Path("record.json"), data, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// cluster is one with a node, and the attendant of that.
type cluster struct {
	*kubetest.Server
	t    *testing.T
	host *host
	cfg  Config
	a    *Attendant
}

func start(t *testing.T) *cluster {
	t.Helper()
	folder := swap.Folder(t.TempDir())
	c := &cluster{
		Server: kubetest.Start(t),
		t:      t,
		host:   &host{t: t, folder: folder},
		cfg: Config{
			Part:          "cri",
			Node:          "n1",
			Label:         label,
			State:         ours,
			Version:       "v1",
			Drains:        true,
			RuntimePrefix: "trivet-cri://",
			DrainLimit:    time.Hour,
			Pause:         time.Hour,
			Trial:         time.Minute,
			Log:           slog.New(slog.NewTextHandler(t.Output(), nil)),
		},
	}
	c.again()
	c.Put(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{label: ""}},
		Status:     status("containerd://2"),
	})
	c.AnswerOn("create pods/eviction", func(runtime.Object) runtime.Object {
		return &metav1.Status{Status: metav1.StatusSuccess}
	})
	return c
}

// again is a pod that is started again: nothing in its memory counts.
func (c *cluster) again() { c.a = New(c.Client(), c.host, c.host.folder, c.cfg) }

func status(runtime string) corev1.NodeStatus {
	return corev1.NodeStatus{
		NodeInfo: corev1.NodeSystemInfo{ContainerRuntimeVersion: runtime},
		Conditions: []corev1.NodeCondition{{
			Type:              corev1.NodeReady,
			Status:            corev1.ConditionTrue,
			LastHeartbeatTime: metav1.Now(),
		}},
	}
}

func (c *cluster) node() *corev1.Node {
	return kubetest.Get[corev1.Node](c.Server, "nodes", "", "n1")
}

// change changes the node as somebody else does.
func (c *cluster) change(do func(*corev1.Node)) {
	node := c.node()
	do(node)
	c.Put(node)
}

// look takes steps until the attendant rests or waits.
func (c *cluster) look(steps int) {
	c.t.Helper()
	for range steps {
		if _, err := c.a.look(c.t.Context()); err != nil {
			c.t.Fatal(err)
		}
	}
}

func (c *cluster) pod(name string, owner string, policy corev1.RestartPolicy) {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name},
		Spec: corev1.PodSpec{
			NodeName:      "n1",
			RestartPolicy: policy,
			Containers:    []corev1.Container{{Name: "a", Image: name + ":1"}},
		},
	}
	if owner != "" {
		pod.OwnerReferences = []metav1.OwnerReference{{Kind: owner, Name: "x", Controller: new(true)}}
	}
	c.Put(pod)
}

func (c *cluster) evictions() (names []string) {
	for _, call := range c.Calls() {
		if name, ok := strings.CutPrefix(call, "create pods/eviction "); ok {
			names = append(names, name)
		}
	}
	return names
}

func (c *cluster) holder() string {
	lease := kubetest.Get[coordinationv1.Lease](c.Server, "leases", "kube-system", "trivet-installer")
	if lease == nil || lease.Spec.HolderIdentity == nil {
		return ""
	}
	return *lease.Spec.HolderIdentity
}

func TestNodeIsDrainedChangedAndTakenIntoUse(t *testing.T) {
	c := start(t)
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.pod("proxy", "DaemonSet", corev1.RestartPolicyAlways)
	c.pod("alone", "", corev1.RestartPolicyAlways)

	c.look(2)
	node := c.node()
	if !node.Spec.Unschedulable || node.Labels[mark("cri")] == "" || c.holder() != "n1/cri" {
		t.Errorf("spec %+v, labels %q, turn %q", node.Spec, node.Labels, c.holder())
	}
	if got := c.evictions(); len(got) == 0 || slices.ContainsFunc(got, func(n string) bool { return n != "default/web" }) {
		t.Errorf("evictions %q", got)
	}

	c.Remove("pods", "default", "web")
	c.look(1)
	order, err := c.host.folder.Order()
	if err != nil || order.To != ours || !slices.Equal(order.Images, []string{"alone:1", "proxy:1"}) {
		t.Fatalf("order %+v, %v", order, err)
	}

	// The exchange ends the pod and starts it again.
	c.host.does(swap.Trying, "")
	c.again()
	c.change(func(n *corev1.Node) { n.Status = status("trivet-cri://v1") })
	c.host.does(swap.Trying, "")
	c.a.started = time.Now()
	c.look(1)
	confirmed, err := os.ReadFile(c.host.folder.Path("confirmed.json"))
	if err != nil || !strings.Contains(string(confirmed), order.ID) {
		t.Fatalf("confirmed %q, %v", confirmed, err)
	}

	c.host.does(swap.Done, "")
	c.look(2)
	node = c.node()
	if node.Spec.Unschedulable || c.holder() != "" || node.Annotations[drain.Cordoned] != "" {
		t.Errorf("spec %+v, annotations %q, turn %q", node.Spec, node.Annotations, c.holder())
	}
	if got := node.Annotations[mark("cri")]; !strings.Contains(got, "without its agent for 2.0 s") {
		t.Errorf("result %q", got)
	}
}

// in is a cluster whose node has trivet-cri.
func in(t *testing.T) *cluster {
	t.Helper()
	c := start(t)
	c.look(1)
	c.host.does(swap.Done, "")
	c.look(2)
	return c
}

func TestLabelThatIsTakenAwayTakesAllWithIt(t *testing.T) {
	c := in(t)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(1)
	order, err := c.host.folder.Order()
	if err != nil || order.To != swap.Out {
		t.Fatalf("order %+v, %v", order, err)
	}

	c.host.does(swap.Done, "")
	c.look(2)
	node := c.node()
	if node.Spec.Unschedulable || len(node.Labels) > 0 || len(node.Annotations) > 0 || !c.host.gone {
		t.Errorf("spec %+v, labels %q, annotations %q, swept %t",
			node.Spec, node.Labels, node.Annotations, c.host.gone)
	}
}

func TestNodeThatWasCordonedBeforeStaysSo(t *testing.T) {
	c := start(t)
	c.change(func(n *corev1.Node) { n.Spec.Unschedulable = true })
	c.look(1)
	c.host.does(swap.Done, "")
	c.look(1)
	if !c.node().Spec.Unschedulable {
		t.Error("the node was taken into use")
	}
}

func TestExchangeThatWasTakenBackIsNotTriedAgain(t *testing.T) {
	c := start(t)
	c.look(1)
	c.host.does(swap.Done, "nobody confirmed")
	c.again()
	c.look(3)
	node := c.node()
	if node.Spec.Unschedulable || !strings.Contains(node.Annotations[mark("cri")], "nobody confirmed") {
		t.Errorf("spec %+v, annotations %q", node.Spec, node.Annotations)
	}
	if len(c.host.launched) != 1 {
		t.Errorf("orders %q", c.host.launched)
	}

	// The label says: once more.
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(2)
	if node := c.node(); len(node.Annotations) > 0 || len(node.Labels) > 0 {
		t.Errorf("labels %q, annotations %q", node.Labels, node.Annotations)
	}
	c.change(func(n *corev1.Node) { n.Labels = map[string]string{label: ""} })
	c.look(1)
	if len(c.host.launched) != 2 {
		t.Errorf("orders %q", c.host.launched)
	}
}

func TestDrainThatABudgetForbidsIsGivenUp(t *testing.T) {
	c := start(t)
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.FailOn("create pods/eviction", -1, apierrors.NewTooManyRequests("budget", 10))
	c.look(2)
	if !c.node().Spec.Unschedulable {
		t.Error("the node is not cordoned")
	}

	c.a.cfg.DrainLimit = 0
	c.look(1)
	if c.node().Spec.Unschedulable || c.holder() != "" || len(c.host.launched) > 0 {
		t.Errorf("spec %+v, turn %q, orders %q", c.node().Spec, c.holder(), c.host.launched)
	}
}

func TestLabelThatIsTakenAwayEndsTheDrain(t *testing.T) {
	c := start(t)
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.look(1)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(1)
	if node := c.node(); node.Spec.Unschedulable || len(node.Labels) > 0 || c.holder() != "" {
		t.Errorf("spec %+v, labels %q, turn %q", node.Spec, node.Labels, c.holder())
	}
}

func TestPodThatWouldBeLostStopsTheExchange(t *testing.T) {
	c := start(t)
	c.pod("once", "", corev1.RestartPolicyNever)
	_, err := c.a.look(t.Context())
	if err == nil || !strings.Contains(err.Error(), "pod default/once") {
		t.Errorf("error %v", err)
	}
}

func TestNodesTakeTurns(t *testing.T) {
	c := start(t)
	now := metav1.NowMicro()
	c.Put(&coordinationv1.Lease{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "trivet-installer"},
		Spec:       coordinationv1.LeaseSpec{HolderIdentity: new("n2/node"), RenewTime: &now},
	})
	c.look(2)
	if c.node().Spec.Unschedulable || c.holder() != "n2/node" {
		t.Errorf("spec %+v, turn %q", c.node().Spec, c.holder())
	}
}

func TestNodeThatIsNotReadyIsLeftAlone(t *testing.T) {
	c := start(t)
	c.change(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	if _, err := c.a.look(t.Context()); err == nil || c.node().Spec.Unschedulable {
		t.Errorf("error %v, spec %+v", err, c.node().Spec)
	}
}

func TestWhatIsFromBeforeConfirmsNothing(t *testing.T) {
	for name, change := range map[string]func(c *cluster){
		"runtime": func(c *cluster) {},
		"not ready": func(c *cluster) {
			c.change(func(n *corev1.Node) {
				n.Status = status("trivet-cri://v1")
				n.Status.Conditions[0].Status = corev1.ConditionFalse
			})
		},
		"status": func(c *cluster) {
			c.change(func(n *corev1.Node) {
				n.Status = status("trivet-cri://v1")
				n.Status.Conditions[0].LastHeartbeatTime = metav1.NewTime(time.Now().Add(-time.Minute))
			})
		},
		"pod": func(c *cluster) {
			c.change(func(n *corev1.Node) { n.Status = status("trivet-cri://v1") })
			c.a.started = time.Now().Add(-time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t)
			c.look(1)
			c.host.does(swap.Trying, "")
			change(c)
			c.look(1)
			if _, err := os.Stat(c.host.folder.Path("confirmed.json")); err == nil {
				t.Error("it was confirmed")
			}
		})
	}
}
