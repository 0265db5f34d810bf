package kube

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func TestServerThatWasRestoredFromABackupIsBelieved(t *testing.T) {
	s := newStore(&resource{name: "nodes"})
	list(t, s, "100", node("90", "first"))
	if err := s.Update(node("200", "second")); err != nil {
		t.Fatal(err)
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
