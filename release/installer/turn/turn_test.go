package turn

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/trivet-node/trivet/internal/kube"
	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

func newTurn(s *kubetest.Server, holder string) *Turn {
	return New(kube.Of[coordinationv1.Lease, coordinationv1.LeaseList](
		s.Client(), coordinationv1.SchemeGroupVersion, "leases"), holder)
}

// take takes a turn and returns whose it is.
func take(t *testing.T, turn *Turn) string {
	t.Helper()
	other, err := turn.Take(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return other
}

func TestOneHolderAtATime(t *testing.T) {
	s := kubetest.Start(t)
	a, b := newTurn(s, "n1/cri"), newTurn(s, "n2/cri")
	for range 2 {
		if other := take(t, a); other != "" {
			t.Errorf("the first one waits for %s", other)
		}
	}
	if other := take(t, b); other != "n1/cri" {
		t.Errorf("the second one waits for %q", other)
	}

	// To give what one does not have changes nothing.
	for _, turn := range []*Turn{b, a, a} {
		if err := turn.Give(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if other := take(t, b); other != "" {
		t.Errorf("the second one waits for %s", other)
	}
}

func TestHolderThatStartsAgainGoesOn(t *testing.T) {
	s := kubetest.Start(t)
	take(t, newTurn(s, "n1/cri"))
	if other := take(t, newTurn(s, "n1/cri")); other != "" {
		t.Errorf("it waits for %s", other)
	}
}

func TestTurnOfAHolderThatIsGoneEnds(t *testing.T) {
	s := kubetest.Start(t)
	take(t, newTurn(s, "n1/cri"))
	b := newTurn(s, "n2/cri")
	take(t, b)
	b.since = b.since.Add(-duration - time.Second)
	if other := take(t, b); other != "" {
		t.Errorf("it waits for %s", other)
	}
}

func TestHolderThatRenewsKeepsItsTurn(t *testing.T) {
	s := kubetest.Start(t)
	take(t, newTurn(s, "n1/cri"))
	b := newTurn(s, "n2/cri")
	take(t, b)
	b.since = b.since.Add(-duration - time.Second)

	// A renewal is another version of the Lease.
	lease := kubetest.Get[coordinationv1.Lease](s, "leases", Namespace, name)
	s.Put(lease)
	if other := take(t, b); other != "n1/cri" {
		t.Errorf("it waits for %q", other)
	}
}
