package attend

import (
	"slices"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/release/installer/drain"
	"github.com/trivet-node/trivet/release/installer/swap"
)

// onTrialHere is a cluster whose node works with trivet-cri, which the machine watches now.
func onTrialHere(t *testing.T) *cluster {
	t.Helper()
	c := start(t)
	c.look(2)
	c.host.does(swap.Proving, "")
	c.again()
	c.look(1)
	return c
}

func TestNodeIsInUseWhileItIsOnTrial(t *testing.T) {
	c := onTrialHere(t)

	// A pod that was killed and begins again leaves it so.
	c.again()
	c.look(2)
	node := c.node()
	if node.Spec.Unschedulable || node.Annotations[drain.Cordoned] != "" || c.holder() != "n1/cri" {
		t.Errorf("spec %+v, annotations %q, turn %q", node.Spec, node.Annotations, c.holder())
	}
	if got := trialOf(node, "cri"); got.State != string(ours) || got.Cordoned == "" {
		t.Errorf("trial %+v", got)
	}

	c.host.does(swap.Done, "")
	c.look(2)
	node = c.node()
	if node.Annotations[trialMark("cri")] != "" || c.holder() != "" {
		t.Errorf("annotations %q, turn %q", node.Annotations, c.holder())
	}
	if got := node.Annotations[mark("cri")]; !strings.Contains(got, "out of use for") {
		t.Errorf("result %q", got)
	}
}

// TestNodeOnTrialIsVouchedForWhileItLives is of the Lease of its agent.
func TestNodeOnTrialIsVouchedForWhileItLives(t *testing.T) {
	c := onTrialHere(t)
	order, err := c.host.folder.Order()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.host.folder.Say(swap.Word{ID: order.ID, Works: true, Ready: time.Unix(7, 0)}); err != nil {
		t.Fatal(err)
	}

	since := trialOf(c.node(), "cri").Since
	alive := func(renewed time.Time) time.Time {
		c.Put(&coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Namespace: corev1.NamespaceNodeLease, Name: "n1"},
			Spec:       coordinationv1.LeaseSpec{RenewTime: new(metav1.NewMicroTime(renewed))},
		})
		c.look(1)
		word := c.host.folder.Word(order.ID)
		if !word.Works || word.Ready.Unix() != 7 {
			t.Errorf("word %+v", word)
		}
		return word.Alive
	}
	for renewed, want := range map[time.Duration]bool{-time.Second: false, time.Second: true} {
		if got := alive(since.Add(renewed)); got.Equal(since.Add(renewed)) != want {
			t.Errorf("renewed %s after: alive at %s", renewed, got)
		}
	}

	first := alive(since.Add(time.Second))
	c.change(func(n *corev1.Node) { n.Status.Conditions[0].Status = corev1.ConditionUnknown })
	if got := alive(since.Add(2 * time.Second)); !got.Equal(first) {
		t.Errorf("not Ready: alive at %s", got)
	}
}

// TestNodeThatSomebodyTookIntoUseIsCordonedAgain is of marks that are gone before the node works.
func TestNodeThatSomebodyTookIntoUseIsCordonedAgain(t *testing.T) {
	for _, phase := range []swap.Phase{swap.Switching, swap.Trying} {
		c := start(t)
		c.look(2)
		c.host.does(phase, "")
		c.change(func(n *corev1.Node) {
			n.Spec.Unschedulable = false
			delete(n.Annotations, drain.Cordoned)
		})
		c.look(1)
		if node := c.node(); !node.Spec.Unschedulable || drain.Owner(node) != "cri" {
			t.Errorf("%s: spec %+v, annotations %q", phase, node.Spec, node.Annotations)
		}
	}
}

func TestTrialThatFailsHasTheNodeDrainedAgain(t *testing.T) {
	c := onTrialHere(t)
	order, err := c.host.folder.Order()
	if err != nil {
		t.Fatal(err)
	}

	c.pod("new", "ReplicaSet", corev1.RestartPolicyAlways)
	c.host.does(swap.Retreating, "it ended")
	c.again()
	c.look(2)
	node := c.node()
	if !node.Spec.Unschedulable || drain.Owner(node) != "cri" || node.Annotations[trialMark("cri")] != "" {
		t.Errorf("spec %+v, annotations %q", node.Spec, node.Annotations)
	}
	if !slices.Contains(c.evictions(), "default/new") || c.host.folder.Word(order.ID).Drained {
		t.Errorf("evictions %q, word %+v", c.evictions(), c.host.folder.Word(order.ID))
	}

	c.Remove("pods", "default", "new")
	c.look(1)
	if !c.host.folder.Word(order.ID).Drained {
		t.Error("the machine is not told that the node is drained")
	}

	c.host.does(swap.Reverting, "it ended")
	c.look(1)
	if !c.node().Spec.Unschedulable {
		t.Error("the node is in use while it goes back")
	}
	c.host.does(swap.Done, "it ended")
	c.look(2)
	node = c.node()
	if node.Spec.Unschedulable || node.Annotations[failedMark("cri")] != string(ours) || c.holder() != "" {
		t.Errorf("spec %+v, annotations %q, turn %q", node.Spec, node.Annotations, c.holder())
	}
}

// TestWayBackWithoutARetreatIsOutOfUse is of a pod that was not there while the machine waited for it.
func TestWayBackWithoutARetreatIsOutOfUse(t *testing.T) {
	c := onTrialHere(t)
	c.host.does(swap.Reverting, "it ended")
	c.again()
	c.look(2)
	if node := c.node(); !node.Spec.Unschedulable || drain.Owner(node) != "cri" {
		t.Errorf("spec %+v, annotations %q", node.Spec, node.Annotations)
	}
}

// TestCordonOfAnAdministratorStays is of one from before the exchange, and of one during the trial.
func TestCordonOfAnAdministratorStays(t *testing.T) {
	cordon := func(n *corev1.Node) { n.Spec.Unschedulable = true }
	for _, failure := range []string{"", "it ended"} {
		for _, before := range []bool{true, false} {
			c := start(t)
			if before {
				c.change(cordon)
			}
			c.look(2)
			c.host.does(swap.Proving, "")
			c.look(1)
			c.change(cordon)
			if failure != "" {
				c.host.does(swap.Retreating, failure)
				c.look(2)
			}
			c.host.does(swap.Done, failure)
			c.look(2)

			node := c.node()
			if !node.Spec.Unschedulable || node.Annotations[drain.Cordoned] != "" {
				t.Errorf("failure %q, before %t: spec %+v, annotations %q",
					failure, before, node.Spec, node.Annotations)
			}
		}
	}
}

// TestAgentsTrialThatFailsOnlyCordons is of an exchange that ends no container.
func TestAgentsTrialThatFailsOnlyCordons(t *testing.T) {
	c := start(t)
	c.cfg.Drains = false
	c.again()
	c.pod("web", "ReplicaSet", corev1.RestartPolicyAlways)
	c.look(2)
	c.host.does(swap.Proving, "")
	c.look(1)
	c.host.does(swap.Retreating, "it ended")
	c.look(1)

	order, err := c.host.folder.Order()
	if err != nil || !c.host.folder.Word(order.ID).Drained || len(c.evictions()) > 0 {
		t.Errorf("word %+v, %v, evictions %q", c.host.folder.Word(order.ID), err, c.evictions())
	}
	if !c.node().Spec.Unschedulable {
		t.Error("the node is not cordoned")
	}
}

// running is a pod that is Ready with a container of a runtime.
func running(name, container string, ready corev1.ConditionStatus) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: "x"},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status: corev1.PodStatus{
			Phase:             corev1.PodRunning,
			Conditions:        []corev1.PodCondition{{Type: corev1.PodReady, Status: ready}},
			ContainerStatuses: []corev1.ContainerStatus{{Name: "app", ContainerID: container}},
		},
	}
}

// waiting is a pod whose container is not there.
func waiting(why string) *corev1.Pod {
	pod := running("a", "", corev1.ConditionFalse)
	state := corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: why}}
	pod.Status.ContainerStatuses[0].State = state
	return pod
}

func TestPodsThatStayAreAwaited(t *testing.T) {
	const theirs, made = "containerd://1", "trivet-cri://2"
	long := 2 * settleLimit
	for name, c := range map[string]struct {
		pod   *corev1.Pod
		since time.Duration
		doubt string
	}{
		"as before":           {running("a", theirs, corev1.ConditionTrue), 0, "has not been made again"},
		"as before, long ago": {running("a", theirs, corev1.ConditionTrue), long, "has not been made again"},
		"in vain":             {waiting("RunContainerError"), long, "made again: RunContainerError"},
		"without an image":    {waiting("ImagePullBackOff"), 0, "default/a is not Ready"},
		"in vain by itself":   {waiting("CreateContainerConfigError"), long, ""},
		"about to be":         {waiting("ContainerCreating"), 0, "default/a is not Ready"},
		"being pulled":        {waiting("ContainerCreating"), long, ""},
		"not Ready":           {running("a", made, corev1.ConditionFalse), 0, "default/a is not Ready"},
		"not Ready, long ago": {running("a", made, corev1.ConditionFalse), long, ""},
		"Ready":               {running("a", made, corev1.ConditionTrue), 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := start(t)
			cluster.Put(running("a", theirs, corev1.ConditionTrue))
			cluster.look(2)
			cluster.host.ago = c.since
			cluster.host.does(swap.Trying, "")
			cluster.again()
			cluster.change(func(n *corev1.Node) { n.Status = status("trivet-cri://v1") })
			cluster.Put(c.pod)
			cluster.look(1)

			order, err := cluster.host.folder.Order()
			word := cluster.host.folder.Word(order.ID)
			if err != nil || word.Works != (c.doubt == "") || !strings.Contains(word.Doubt, c.doubt) {
				t.Errorf("word %+v, %v", word, err)
			}
		})
	}
}

// TestOnlyTheRuntimeVetoes is of containers that are not there, on the way in and on the way out.
func TestOnlyTheRuntimeVetoes(t *testing.T) {
	for reason, vetoes := range map[string]bool{
		"CreateContainerError":       true,
		"RunContainerError":          true,
		"CreateContainerConfigError": false,
		"ErrImagePull":               false,
		"ImagePullBackOff":           false,
		"InvalidImageName":           false,
		"ErrImageNeverPull":          false,
		"CrashLoopBackOff":           false,
		"PodInitializing":            false,
	} {
		for _, to := range []swap.State{ours, swap.Out} {
			a := &inspector{cfg: Config{RuntimePrefix: "trivet-cri://"}}
			current := func(id string) bool { return a.isRuntime(id, to) }
			unmade, unready := compare([]string{"x"}, []*corev1.Pod{waiting(reason)}, current)
			if (unmade != "") != vetoes || unready == "" {
				t.Errorf("%s, to %s: unmade %q, unready %q", reason, to, unmade, unready)
			}
		}
	}
}

// TestPodsThatCannotBeListedAreADoubt is what the machine goes back with, if it stays so.
func TestPodsThatCannotBeListedAreADoubt(t *testing.T) {
	c := start(t)
	c.Put(running("a", "containerd://1", corev1.ConditionTrue))
	c.look(2)
	c.host.does(swap.Trying, "")
	c.again()
	c.change(func(n *corev1.Node) { n.Status = status("trivet-cri://v1") })
	c.FailOn("list pods", -1, apierrors.NewServiceUnavailable("overloaded"))
	c.look(1)

	order, err := c.host.folder.Order()
	word := c.host.folder.Word(order.ID)
	if err != nil || word.Works || !strings.Contains(word.Doubt, "overloaded") {
		t.Errorf("word %+v, %v", word, err)
	}
}

func TestWhoIsAwaited(t *testing.T) {
	ready := running("a", "containerd://1", corev1.ConditionTrue)
	unready := running("b", "containerd://2", corev1.ConditionFalse)
	going := running("c", "containerd://3", corev1.ConditionTrue)
	going.DeletionTimestamp = new(metav1.Now())
	ready.UID, unready.UID, going.UID = "1", "2", "3"
	if got := residents([]*corev1.Pod{ready, unready, going}); !slices.Equal(got, []string{"1"}) {
		t.Errorf("residents %q", got)
	}

	// One that has gone, has ended or is another one of the name is waited for no more.
	another := running("a", "containerd://1", corev1.ConditionFalse)
	another.UID = "4"
	ended := running("a", "containerd://1", corev1.ConditionFalse)
	ended.UID, ended.Status.Phase = "1", corev1.PodSucceeded
	never := func(string) bool { return false }
	for _, pods := range [][]*corev1.Pod{nil, {another}, {ended}} {
		if unmade, unready := compare([]string{"1"}, pods, never); unmade != "" || unready != "" {
			t.Errorf("waits: %q, %q", unmade, unready)
		}
	}
	undone, pending := compare([]string{"1", "2"}, []*corev1.Pod{ready, unready}, never)
	if !strings.Contains(undone, "default/a") || !strings.Contains(pending, "default/b") {
		t.Errorf("waits: %q, %q", undone, pending)
	}
}
