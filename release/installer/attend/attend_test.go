package attend

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

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
	if got := slices.Compact(c.evictions()); !slices.Equal(got, []string{"default/web"}) {
		t.Errorf("evictions %q", got)
	}

	c.Remove("pods", "default", "web")
	c.look(1)
	order, err := c.host.folder.Order()
	images := []string{"alone:1", "proxy:1", "web:1"}
	if err != nil || order.To != ours || !slices.Equal(order.Images, images) {
		t.Fatalf("order %+v, %v", order, err)
	}

	// The exchange ends the pod and starts it again.
	c.host.does(swap.Trying, "")
	c.again()
	c.change(func(n *corev1.Node) { n.Status = status("trivet-cri://v1") })
	c.host.does(swap.Trying, "")
	c.a.started = time.Now()
	c.look(1)
	if word := c.host.folder.Word(order.ID); !word.Works {
		t.Fatalf("word %+v", word)
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
	c.look(2)
	c.host.does(swap.Done, "")
	c.look(2)
	return c
}

func TestLabelThatIsTakenAwayTakesAllWithIt(t *testing.T) {
	c := in(t)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(2)
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

	// With the label goes, may be, what the installer may do.
	var said, left int
	for i, call := range c.Calls() {
		switch {
		case strings.HasPrefix(call, "create events"):
			said = i
		case strings.HasPrefix(call, "patch nodes"):
			left = i
		}
	}
	if said == 0 || said > left {
		t.Errorf("call %d says how it ended, call %d takes the label away", said, left)
	}
}

func TestNodeThatWasCordonedBeforeStaysSo(t *testing.T) {
	c := start(t)
	c.change(func(n *corev1.Node) { n.Spec.Unschedulable = true })
	c.look(2)
	c.host.does(swap.Done, "")
	c.look(1)
	if !c.node().Spec.Unschedulable {
		t.Error("the node was taken into use")
	}
}

func TestExchangeThatWasTakenBackIsNotTriedAgain(t *testing.T) {
	c := start(t)
	c.look(2)
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
	c.look(2)
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
	c.look(2)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(1)
	if node := c.node(); node.Spec.Unschedulable || len(node.Labels) > 0 || c.holder() != "" {
		t.Errorf("spec %+v, labels %q, turn %q", node.Spec, node.Labels, c.holder())
	}
}

func TestPodThatWouldBeLostStopsTheExchange(t *testing.T) {
	c := start(t)
	c.pod("once", "", corev1.RestartPolicyNever)
	c.look(1)
	if c.node().Spec.Unschedulable || c.holder() != "" || len(c.host.launched) > 0 {
		t.Errorf("spec %+v, turn %q, orders %q", c.node().Spec, c.holder(), c.host.launched)
	}
}

func TestNodeThatIsNotReadyIsLeftAlone(t *testing.T) {
	c := start(t)
	c.change(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	c.look(1)
	if c.node().Spec.Unschedulable || c.holder() != "" {
		t.Errorf("spec %+v, turn %q", c.node().Spec, c.holder())
	}
}

// TestWhatIsLeftKeepsTheLabelUntilItIsGone is of a way out that could not give all back.
func TestWhatIsLeftKeepsTheLabelUntilItIsGone(t *testing.T) {
	c := in(t)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(2)
	c.host.left = "give /etc/crictl.yaml back: busy"
	c.host.does(swap.Done, "")
	c.look(4)
	node := c.node()
	if c.host.gone || node.Labels[mark("cri")] == "" || node.Spec.Unschedulable || c.holder() != "" {
		t.Fatalf("swept %t, labels %q, spec %+v", c.host.gone, node.Labels, node.Spec)
	}

	orders := len(c.host.launched)
	c.host.taken = time.Now().Add(-finishPause)
	c.host.does(swap.Done, "")
	c.look(1)
	order, err := c.host.folder.Order()
	if err != nil || order.To != swap.Out || len(c.host.launched) != orders+1 {
		t.Fatalf("order %+v, %v, %d orders", order, err, len(c.host.launched))
	}

	c.host.left = ""
	c.host.does(swap.Done, "")
	c.look(2)
	if node := c.node(); !c.host.gone || len(node.Labels) > 0 || len(node.Annotations) > 0 {
		t.Errorf("swept %t, labels %q, annotations %q", c.host.gone, node.Labels, node.Annotations)
	}
}

// TestAnythingThatFailsAfterTheCordonEndsInTime is of a folder that cannot be written.
func TestAnythingThatFailsAfterTheCordonEndsInTime(t *testing.T) {
	c := start(t)
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	images := c.host.folder.Path("images.json")
	if err := os.Mkdir(images, 0o700); err != nil {
		t.Fatal(err)
	}
	c.look(1)
	for range 2 {
		if _, err := c.a.look(t.Context()); err == nil {
			t.Fatal("no error")
		}
	}
	if !c.node().Spec.Unschedulable {
		t.Fatal("the node is not cordoned")
	}

	c.a.cfg.DrainLimit = 0
	c.look(1)
	if c.node().Spec.Unschedulable || c.holder() != "" || time.Until(c.a.notBefore) <= 0 {
		t.Errorf("spec %+v, turn %q", c.node().Spec, c.holder())
	}
}

// TestWhatFailsBeforeTheCordonLetsOtherNodesGoOn is of faults that may last.
func TestWhatFailsBeforeTheCordonLetsOtherNodesGoOn(t *testing.T) {
	for why, fault := range map[string]func(c *cluster){
		"no space": func(c *cluster) { c.host.full = errors.New("no space") },
		"may not":  func(c *cluster) { c.FailOn("list pods", -1, forbidden("pods")) },
		"not see":  func(c *cluster) { c.FailOn("list nodes", -1, forbidden("nodes")) },
	} {
		t.Run(why, func(t *testing.T) {
			c := start(t)
			fault(c)
			pause, err := c.a.look(t.Context())
			if err != nil || pause != refusedPause || c.node().Spec.Unschedulable || c.holder() != "" {
				t.Errorf("%v, %v; spec %+v, turn %q", pause, err, c.node().Spec, c.holder())
			}

			c.a.flush(t.Context())
			said := func(call string) bool { return strings.HasPrefix(call, "create events") }
			if !slices.ContainsFunc(c.Calls(), said) {
				t.Errorf("no event says it: %q", c.Calls())
			}
		})
	}
}

func forbidden(what string) *apierrors.StatusError {
	return apierrors.NewForbidden(schema.GroupResource{Resource: what}, "", errors.New("no role"))
}

// TestPodThatComesBeforeTheCordonIsSeen is of one that was not there when the pods were listed.
func TestPodThatComesBeforeTheCordonIsSeen(t *testing.T) {
	c := start(t)
	c.look(1)
	if len(c.host.launched) > 0 || !c.node().Spec.Unschedulable {
		t.Fatalf("orders %q, spec %+v", c.host.launched, c.node().Spec)
	}

	c.pod("late", "ReplicaSet", corev1.RestartPolicyAlways)
	c.look(1)
	if len(c.host.launched) > 0 || !slices.Contains(c.evictions(), "default/late") {
		t.Errorf("orders %q, evictions %q", c.host.launched, c.evictions())
	}
}

// TestPodThatComesAfterTheCheckStopsTheExchange is of one that would be lost.
func TestPodThatComesAfterTheCheckStopsTheExchange(t *testing.T) {
	c := start(t)
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.look(2)
	c.Remove("pods", "default", "web")
	c.pod("once", "", corev1.RestartPolicyNever)
	c.look(2)
	if len(c.host.launched) > 0 || slices.Contains(c.evictions(), "default/once") {
		t.Errorf("orders %q, evictions %q", c.host.launched, c.evictions())
	}

	c.a.cfg.DrainLimit = 0
	c.look(1)
	if c.node().Spec.Unschedulable {
		t.Error("the node is cordoned")
	}
}

// TestPodsOfAnAgentsExchangeStay is also of one that would be lost if it went.
func TestPodsOfAnAgentsExchangeStay(t *testing.T) {
	c := start(t)
	c.cfg.Drains = false
	c.again()
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.pod("once", "", corev1.RestartPolicyNever)
	c.look(2)
	if len(c.host.launched) != 1 || len(c.evictions()) > 0 {
		t.Errorf("orders %q, evictions %q", c.host.launched, c.evictions())
	}
}
