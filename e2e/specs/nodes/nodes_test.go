package nodes

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name string, conditions ...corev1.NodeCondition) corev1.Node {
	return corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Status:     corev1.NodeStatus{Conditions: conditions},
	}
}

func TestNodesAreFitWhenAllAreReadyAndNoneIsShort(t *testing.T) {
	ready := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionTrue}
	lost := corev1.NodeCondition{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}
	room := corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionFalse}
	full := corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue, Message: "full"}

	for name, test := range map[string]struct {
		list  []corev1.Node
		fault string
	}{
		"fit":                 {[]corev1.Node{node("a", room, ready), node("b", ready)}, ""},
		"a Node of a spec":    {[]corev1.Node{node("a", ready), node("b", ready), node("fake", lost)}, ""},
		"not Ready":           {[]corev1.Node{node("a", ready), node("b", lost)}, "node b is not Ready"},
		"without a condition": {[]corev1.Node{node("a"), node("b", ready)}, "node a is not Ready"},
		"gone":                {[]corev1.Node{node("a", ready)}, "node b is gone"},
		"short of room": {
			[]corev1.Node{node("a", ready), node("b", ready, full)},
			"node b has DiskPressure: full",
		},
	} {
		err := fit([]string{"a", "b"}, test.list)
		if (err == nil) != (test.fault == "") || err != nil && !strings.Contains(err.Error(), test.fault) {
			t.Errorf("%s: %v, want %q", name, err, test.fault)
		}
	}
}
