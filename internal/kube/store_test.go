package kube

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube/history"
	"github.com/trivet-node/trivet/internal/kube/round"
)

// node is a version of a Node.
func node(version, podCIDR string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "a", UID: "u", ResourceVersion: version},
		Spec:       corev1.NodeSpec{PodCIDR: podCIDR},
	}
}

func shown(t *testing.T, s *store) string {
	t.Helper()
	found, ok := s.get("a").(*corev1.Node)
	if !ok {
		t.Fatal("there is no Node")
	}
	return found.Spec.PodCIDR
}

func list(t *testing.T, s *store, version string, all ...any) {
	t.Helper()
	if err := s.Replace(all, version); err != nil {
		t.Fatal(err)
	}
}

// refused has a list that is not believed.
func refused(t *testing.T, s *store, version string, all ...any) {
	t.Helper()
	if s.Replace(all, version) == nil {
		t.Errorf("list of version %s is believed", version)
	}
}

func TestServerThatWasRestoredFromABackupIsBelieved(t *testing.T) {
	synctest.Test(t, restoredServer)
}

func restoredServer(t *testing.T) {
	s := newStore(&resource{name: "nodes"})
	list(t, s, "100", node("90", "first"))
	if err := s.Update(node("200", "second")); err != nil {
		t.Fatal(err)
	}

	// A server that only lags behind does so no longer after a minute.
	for range 6 {
		refused(t, s, "150", node("90", "first"))
		if got := shown(t, s); got != "second" {
			t.Errorf("after an old list: %s", got)
		}
		time.Sleep(history.Restored / 6)
	}

	list(t, s, "150", node("90", "first"))
	if got := shown(t, s); got != "first" {
		t.Errorf("after the restore: %s", got)
	}
	if err := s.Update(node("160", "third")); err != nil {
		t.Fatal(err)
	}
	if got := shown(t, s); got != "third" {
		t.Errorf("after a change of what was restored: %s", got)
	}
}

func TestObjectThatAStreamedListLacksGoesWithAListInOnePiece(t *testing.T) {
	s := newStore(&resource{name: "nodes"})
	list(t, s, "100", node("90", "first"))
	refused(t, s, "110")
	shown(t, s)

	s.history.Whole("120")
	list(t, s, "120")
	if s.get("a") != nil {
		t.Error("the Node is still there")
	}

	list(t, s, "130", node("125", "first"))
	refused(t, s, "140")
}

func TestEventThatComesAfterANewerOneEndsTheRound(t *testing.T) {
	s := newStore(&resource{name: "nodes", limits: Limits{}.resolved()})
	list(t, s, "100", node("90", "first"))
	ctx, cancel := context.WithCancel(t.Context())
	s.rounds.Run(ctx, func() int { return 1 }, func(round context.Context) {
		defer cancel()
		must := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}

		must(s.Update(node("110", "second")))
		must(s.Update(node("110", "second")))
		s.UpdateResourceVersion("120")
		must(s.Delete(node("130", "")))
		if cause := context.Cause(round); cause != nil {
			t.Errorf("it ended while all was in order: %v", cause)
		}
	})

	// An object that has gone must not come back.
	for name, event := range map[string]func(){
		"change":   func() { _ = s.Update(node("110", "second")) },
		"deletion": func() { _ = s.Delete(node("110", "second")) },
		"bookmark": func() { s.UpdateResourceVersion("110") },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		s.rounds.Run(ctx, func() int { return 1 }, func(ctx context.Context) {
			defer cancel()
			event()
			if cause := context.Cause(ctx); !errors.Is(cause, round.ErrDisorder) || s.get("a") != nil {
				t.Errorf("late %s: ended by %v, Node %v", name, cause, s.get("a"))
			}
		})
	}
}

func TestListThatBeganBeforeAWriteDoesNotUndoItsAnswer(t *testing.T) {
	s := newStore(&resource{name: "nodes"})
	list(t, s, "100", node("90", "first"))
	if !s.saw(node("120", "written")) {
		t.Error("the answer is not taken")
	}
	list(t, s, "110", node("90", "first"))
	if got := shown(t, s); got != "written" {
		t.Errorf("after the list: %s", got)
	}
}

func TestFewObjectsThatAStreamedListLacksAreAskedFor(t *testing.T) {
	s := newStore(&resource{name: "nodes"})
	var asked int
	var answer metav1.Object = node("90", "first")
	s.left = func(lacks []metav1.Object, version string) metav1.Object {
		asked += len(lacks)
		if version != "110" {
			t.Errorf("asked as of version %s", version)
		}
		return answer
	}

	list(t, s, "100", node("90", "first"))
	refused(t, s, "110")
	shown(t, s)

	answer = nil
	list(t, s, "110")
	if s.get("a") != nil || asked != 2 {
		t.Errorf("Node %v, asked %d times", s.get("a"), asked)
	}
}
