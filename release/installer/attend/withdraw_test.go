package attend

import (
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/trivet-node/trivet/release/installer/swap"
)

// ordered is a node that is out of use for an order that was given some time ago, and that no machine has
// begun with.
func ordered(t *testing.T, ago time.Duration) *cluster {
	t.Helper()
	c := start(t)
	c.look(2)
	order, err := c.host.folder.Order()
	if err != nil || order.ID == "" {
		t.Fatalf("order %+v, %v", order, err)
	}
	order.Given = time.Now().Add(-ago)
	if err := c.host.folder.Give(order); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestOrderThatNoMachineBeginsWithIsTakenBack is of a service that cannot be written, or whose program is not
// executed.
func TestOrderThatNoMachineBeginsWithIsTakenBack(t *testing.T) {
	c := ordered(t, takeLimit+time.Second)
	c.host.broken = errors.New("read-only file system")
	c.look(1)
	order, err := c.host.folder.Order()
	if err != nil || order.ID != "" || c.host.canceled != 1 {
		t.Errorf("order %+v, %v, canceled %d times", order, err, c.host.canceled)
	}
	if c.node().Spec.Unschedulable || c.holder() != "" || time.Until(c.a.notBefore) <= 0 {
		t.Errorf("spec %+v, turn %q", c.node().Spec, c.holder())
	}

	// It is tried again, and wanted no more after that.
	c.host.broken = nil
	c.again()
	c.look(2)
	if len(c.host.launched) != 2 {
		t.Errorf("orders %q", c.host.launched)
	}
	c.host.does(swap.Done, "")
	c.look(1)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(2)
	if order, err := c.host.folder.Order(); err != nil || order.To != swap.Out {
		t.Errorf("order %+v, %v", order, err)
	}
}

// TestOrderThatIsTakenBackLeavesTheOneBefore is of a version that no machine begins with.
func TestOrderThatIsTakenBackLeavesTheOneBefore(t *testing.T) {
	c := in(t)
	before, err := c.host.folder.Order()
	if err != nil {
		t.Fatal(err)
	}
	c.a.cfg.State = "v2-def"
	c.look(2)
	v, err := c.a.view(t.Context())
	if err != nil || !v.isNew() {
		t.Fatalf("order %+v, %v", v.order, err)
	}
	if err := c.a.withdraw(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	if now, err := c.host.folder.Order(); err != nil || now.ID != before.ID || c.node().Spec.Unschedulable {
		t.Errorf("order %+v, %v, spec %+v", now, err, c.node().Spec)
	}
}

func TestOrderThatIsNewOrBegunGoesOn(t *testing.T) {
	c := ordered(t, takeLimit/2)
	c.look(1)
	if c.host.canceled > 0 || len(c.host.launched) != 2 {
		t.Errorf("canceled %d times, orders %q", c.host.canceled, c.host.launched)
	}

	// Between the look and the end of its service.
	c = ordered(t, takeLimit+time.Second)
	v, err := c.a.view(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c.host.does(swap.Switching, "")
	if err := c.a.withdraw(t.Context(), v); err != nil {
		t.Fatal(err)
	}
	order, err := c.host.folder.Order()
	if err != nil || order.ID != v.order.ID || !c.node().Spec.Unschedulable {
		t.Errorf("order %+v, %v, spec %+v", order, err, c.node().Spec)
	}
}

// TestSystemdThatDoesNotAnswerEndsADrain is of a machine that does not say whether it is idle.
func TestSystemdThatDoesNotAnswerEndsADrain(t *testing.T) {
	c := start(t)
	c.host.broken = errors.New("connection timed out")
	pause, err := c.a.look(t.Context())
	if err != nil || pause != refusedPause || c.node().Spec.Unschedulable {
		t.Errorf("before: %v, %v, spec %+v", pause, err, c.node().Spec)
	}

	c.host.broken = nil
	c.look(1)
	c.host.broken = errors.New("connection timed out")
	c.a.cfg.DrainLimit = 0
	c.look(1)
	if c.node().Spec.Unschedulable || c.holder() != "" {
		t.Errorf("after: spec %+v, turn %q", c.node().Spec, c.holder())
	}
}

// TestDrainThatIsGivenUpEndsThoughTheNodeIsWritten is of a conflict, and of an API server that is away.
func TestDrainThatIsGivenUpEndsThoughTheNodeIsWritten(t *testing.T) {
	c := start(t)
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.look(2)
	c.a.cfg.DrainLimit = 0
	resource := schema.GroupResource{Resource: "nodes"}
	c.FailOn("patch nodes", 1, apierrors.NewConflict(resource, "n1", errors.New("it was written")))
	if _, err := c.a.look(t.Context()); !apierrors.IsConflict(err) {
		t.Fatalf("error %v", err)
	}

	c.look(1)
	if c.node().Spec.Unschedulable || c.holder() != "" {
		t.Errorf("spec %+v, turn %q", c.node().Spec, c.holder())
	}
	if pause, err := c.a.look(t.Context()); err != nil || pause < time.Minute || c.holder() != "" {
		t.Errorf("pause %s, %v, turn %q", pause, err, c.holder())
	}
}
