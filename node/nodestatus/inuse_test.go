package nodestatus_test

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/internal/kube/kubetest"
	"github.com/trivet-node/trivet/node/csivolume/inuse"
	"github.com/trivet-node/trivet/node/nodestatus"
)

// always is what is known of drivers whose volumes are all attached.
func always(string) (is, known bool) { return true, true }

func TestVolumesInUseAreShownAtOnceAndTakenOutAtOnce(t *testing.T) {
	volumes := &inuse.Volumes{}
	n := newNode(t, kubetest.Start(t), func(cfg *nodestatus.Config) {
		cfg.InUse = volumes
		cfg.CheckFrequency = time.Hour
	})
	volumes.Follow(n.Look)
	volumes.Begin(always, true)
	n.start()
	<-n.Registered()
	n.await("ready", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })

	volumes.Hold("d", "h", "pod")
	n.await("reported", func() bool { return volumes.IsReported("d", "h") })
	want := []v1.UniqueVolumeName{"kubernetes.io/csi/d^h"}
	if got := n.stored().Status.VolumesInUse; !slices.Equal(got, want) {
		t.Errorf("in use %v, want %v", got, want)
	}

	volumes.Release("pod")
	n.await("nothing in use", func() bool { return len(n.stored().Status.VolumesInUse) == 0 })
}

func TestVolumesOfAnEarlierAgentStayThatCouldNotBeRead(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Status:     v1.NodeStatus{VolumesInUse: []v1.UniqueVolumeName{"left"}},
	})

	volumes := &inuse.Volumes{}
	n := newNode(t, server, func(cfg *nodestatus.Config) { cfg.InUse = volumes })
	volumes.Begin(always, false)
	volumes.Hold("d", "h", "pod")
	n.start()
	<-n.Registered()
	n.await("both are shown", func() bool {
		want := []v1.UniqueVolumeName{"kubernetes.io/csi/d^h", "left"}
		return slices.Equal(n.stored().Status.VolumesInUse, want)
	})
}

func TestVolumesOfAnEarlierAgentAreShownUntilItIsKnownWhatThereIs(t *testing.T) {
	server := kubetest.Start(t)
	server.Put(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n"},
		Status:     v1.NodeStatus{VolumesInUse: []v1.UniqueVolumeName{"left", "kubernetes.io/csi/d^h"}},
	})

	volumes := &inuse.Volumes{}
	volumes.Hold("d", "h", "pod")
	n := newNode(t, server, func(cfg *nodestatus.Config) { cfg.InUse = volumes })
	n.start()
	<-n.Registered()
	n.await("the status is reported", func() bool { return readyOf(n.stored()) == v1.ConditionTrue })
	if got := n.stored().Status.VolumesInUse; len(got) != 2 {
		t.Errorf("in use %v before that is known", got)
	}

	volumes.Begin(always, true)
	n.await("what is left is taken out", func() bool {
		return slices.Equal(n.stored().Status.VolumesInUse, []v1.UniqueVolumeName{"kubernetes.io/csi/d^h"})
	})
}
