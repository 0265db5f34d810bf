package gate

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/admit"
)

// pod requests CPUs and is as old as it says.
func pod(uid types.UID, cpu string, age time.Duration) *v1.Pod {
	requests := v1.ResourceList{"cpu": resource.MustParse(cpu)}
	container := v1.Container{Resources: v1.ResourceRequirements{Requests: requests}}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: uid, CreationTimestamp: metav1.NewTime(time.Now().Add(-age))},
		Spec:       v1.PodSpec{Containers: []v1.Container{container}},
	}
}

func critical(p *v1.Pod) *v1.Pod {
	p.Spec.Priority = new(int32(2_000_000_000))
	return p
}

// asAsked gives each pod what it asks for.
type asAsked struct{}

func (asAsked) Admit(*v1.Pod)          {}
func (asAsked) Of(pod *v1.Pod) *v1.Pod { return pod }

// oneCPU is the gate of a node with one CPU; ended gathers pods that must end.
func oneCPU(ended *[]types.UID) *Gate {
	node := admit.Node{
		Object:      &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n"}},
		Allocatable: v1.ResourceList{"cpu": resource.MustParse("1"), "pods": resource.MustParse("10")},
	}
	check := func(pod *v1.Pod, others []*v1.Pod) admit.Verdict { return admit.Check(node, pod, others) }
	return New(check, asAsked{}, func(uid types.UID) { *ended = append(*ended, uid) })
}

func TestTheOlderPodGetsTheRoom(t *testing.T) {
	var ended []types.UID
	g := oneCPU(&ended)
	all := []*v1.Pod{
		pod("young", "600m", 0), pod("old", "600m", time.Hour), pod("middle", "300m", time.Minute),
	}
	if v := g.Ask(all[0], all); v.Reason != "OutOfcpu" {
		t.Errorf("young: %+v", v)
	}

	for _, p := range all[1:] {
		if v := g.Ask(p, all); !v.Admitted() {
			t.Errorf("%s: %+v", p.UID, v)
		}
	}
}

func TestAPodThatHasBegunIsNotAskedAbout(t *testing.T) {
	var ended []types.UID
	g := oneCPU(&ended)
	runs, old, young := pod("runs", "1", time.Hour), pod("old", "1", time.Hour), pod("young", "500m", 0)
	runs.Status.StartTime = &metav1.Time{}
	g.Begun("old")
	if v := g.Ask(young, []*v1.Pod{runs, old, young}); v.Message !=
		"Node didn't have enough resource: cpu, requested: 500, used: 2000, capacity: 1000" {
		t.Errorf("%+v", v)
	}
}

func TestRoomThatIsMadeIsForTheCriticalPod(t *testing.T) {
	var ended []types.UID
	g := oneCPU(&ended)
	victim, young := pod("victim", "1", time.Hour), pod("young", "1", 0)
	important := critical(pod("important", "1", time.Minute))
	all := []*v1.Pod{victim, important, young}
	g.Begun("victim")

	// it waits
	for range 2 {
		if v := g.Ask(important, all); len(v.Preempt) != 1 || v.Preempt[0] != victim {
			t.Fatalf("%+v", v)
		}
	}

	if !g.Victim("victim") || g.Victim("young") || len(ended) == 0 || ended[0] != "victim" {
		t.Errorf("ended %v", ended)
	}

	const full = "Node didn't have enough resource: cpu, requested: 1000, used: 1000, capacity: 1000"
	if v := g.Ask(young, all); v.Message != full {
		t.Errorf("another pod takes the room: %+v", v)
	}

	victim.Status.Phase = v1.PodFailed
	if v := g.Ask(important, all); !v.Admitted() {
		t.Errorf("%+v", v)
	}
}

func TestAPodThatIsGoneLeavesItsRoom(t *testing.T) {
	var ended []types.UID
	g := oneCPU(&ended)
	first, second := pod("first", "1", time.Hour), pod("second", "1", 0)
	if v := g.Ask(first, []*v1.Pod{first, second}); !v.Admitted() {
		t.Fatalf("%+v", v)
	}
	g.Forget("first")
	if v := g.Ask(second, []*v1.Pod{second}); !v.Admitted() {
		t.Errorf("%+v", v)
	}
}

// Two victims of which the smaller ends first: a third pod is nearer to what is missing then.
func TestNoOtherPodEndsWhileThoseThatWereChosenDo(t *testing.T) {
	var ended []types.UID
	g := oneCPU(&ended)
	a, b := pod("a", "350m", time.Hour), pod("b", "300m", time.Hour)
	c, important := pod("c", "320m", time.Hour), critical(pod("important", "600m", 0))
	all := []*v1.Pod{a, b, c, important}
	for _, p := range all[:3] {
		g.Begun(p.UID)
	}

	chosen := map[types.UID]bool{}
	for _, victim := range g.Ask(important, all).Preempt {
		chosen[victim.UID] = true
	}

	if len(chosen) != 2 || !chosen["a"] || !chosen["b"] {
		t.Fatalf("chosen %v", chosen)
	}

	b.Status.Phase = v1.PodFailed
	for _, victim := range g.Ask(important, all).Preempt {
		if !chosen[victim.UID] {
			t.Errorf("%s ends in vain", victim.UID)
		}
	}
}
