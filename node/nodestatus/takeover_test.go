package nodestatus_test

import (
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
)

// TestWhatAnotherAgentHasSaidIsTakenAwayOnce is of an agent that is exchanged for this one: a status that
// cannot become the wanted one would be sent at each look.
func TestWhatAnotherAgentHasSaidIsTakenAwayOnce(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Status: v1.NodeStatus{
			NodeInfo: v1.NodeSystemInfo{
				RunningInUserNamespace: new(true),
				Swap:                   &v1.NodeSwapStatus{Capacity: new(int64(1))},
			},
			RuntimeHandlers:  []v1.NodeRuntimeHandler{{Name: "theirs"}},
			DeclaredFeatures: []string{"Theirs"},
			Images:           []v1.ContainerImage{{Names: []string{"theirs"}}},
		},
	})

	n := newNode(t, server, nil)
	n.start()
	n.await("ready", func() bool { return readyOf(n.Node()) == v1.ConditionTrue })
	looks := n.runtime.count()
	n.await("some looks", func() bool { return n.runtime.count() > looks+20 })

	var sent []string
	for _, call := range server.Calls() {
		if strings.HasPrefix(call, "patch nodes/status") {
			sent = append(sent, call)
		}
	}
	s := n.stored().Status
	if len(sent) > 2 || len(s.RuntimeHandlers) > 0 || len(s.DeclaredFeatures) > 0 || s.NodeInfo.Swap != nil {
		t.Errorf("sent %d times; the status is %+v", len(sent), s)
	}
}
