package attend

import (
	"strings"
	"testing"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

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

func TestOneNodeIsOutOfUseAtATime(t *testing.T) {
	for name, annotations := range map[string]map[string]string{
		"cordoned":   {drain.Cordoned: `{"by": "node", "since": "2026-01-01T00:00:00Z"}`},
		"taken back": {failedMark("cri"): string(ours)},
		"on trial":   {trialMark("node"): `{"order": "x"}`},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t)
			c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2", Annotations: annotations}})
			c.look(2)
			if c.node().Spec.Unschedulable || c.holder() != "" || len(c.host.launched) > 0 {
				t.Errorf("spec %+v, turn %q", c.node().Spec, c.holder())
			}

			c.Put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{
				Name:        "n2",
				Annotations: map[string]string{failedMark("cri"): "v0-older"},
			}})
			c.look(2)
			if len(c.host.launched) != 1 {
				t.Errorf("orders %q", c.host.launched)
			}
		})
	}
}

func TestVersionThatWasTakenBackIsMarkedUntilItIsForgiven(t *testing.T) {
	c := start(t)
	c.look(2)
	c.host.does(swap.Done, "nobody confirmed")
	c.look(1)
	if got := c.node().Annotations[failedMark("cri")]; got != string(ours) {
		t.Errorf("mark %q", got)
	}
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(2)
	if got, marked := c.node().Annotations[failedMark("cri")]; marked {
		t.Errorf("mark %q", got)
	}
}

// TestNodeOfTheOtherInstallerIsLeftAlone takes no turn that the other one would wait for.
func TestNodeOfTheOtherInstallerIsLeftAlone(t *testing.T) {
	for name, value := range map[string]string{
		drain.Cordoned:    `{"by": "node", "since": "2026-01-01T00:00:00Z"}`,
		trialMark("node"): `{"order": "x"}`,
	} {
		c := start(t)
		c.change(func(n *corev1.Node) { n.Annotations = map[string]string{name: value} })
		c.look(2)
		if c.holder() != "" || len(c.host.launched) > 0 {
			t.Errorf("%s: turn %q, orders %q", name, c.holder(), c.host.launched)
		}
	}
}

// TestTurnIsGivenBeforeTheLabelGoes is of a pod that goes with the label.
func TestTurnIsGivenBeforeTheLabelGoes(t *testing.T) {
	c := in(t)
	c.change(func(n *corev1.Node) { delete(n.Labels, label) })
	c.look(2)
	c.host.does(swap.Done, "")
	c.FailOn("patch nodes", -1, apierrors.NewServiceUnavailable("down"))
	if _, err := c.a.look(t.Context()); err == nil {
		t.Error("no error")
	}
	if c.holder() != "" {
		t.Errorf("turn %q", c.holder())
	}
}

// TestTurnOfOneThatWasKilledIsGiven is of a kill after the end of an exchange, and of an error.
func TestTurnOfOneThatWasKilledIsGiven(t *testing.T) {
	c := in(t)
	if _, err := c.a.turn.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.again()
	c.look(1)
	if c.holder() != "" {
		t.Errorf("turn %q", c.holder())
	}

	calls := len(c.Calls())
	c.look(1)
	for _, call := range c.Calls()[calls:] {
		if strings.Contains(call, "leases") {
			t.Errorf("in peace: %s", call)
		}
	}

	if _, err := c.a.turn.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.FailOn("get nodes", 1, apierrors.NewServiceUnavailable("down"))
	if _, err := c.a.look(t.Context()); err == nil {
		t.Error("no error")
	}
	c.look(1)
	if c.holder() != "" {
		t.Errorf("turn %q after an error", c.holder())
	}
}
