package podtiming

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// at is so many seconds after the pods of these tests were created.
func at(seconds float64) time.Time {
	return time.Unix(1_000_000, 0).Add(time.Duration(seconds * float64(time.Second)))
}

func pod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{CreationTimestamp: metav1.NewTime(at(0))},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "a"}, {Name: "b"}}},
	}
}

// shows is a status with so many containers that run, and init containers that ran for so many seconds.
func shows(phase v1.PodPhase, running int, init ...float64) *v1.PodStatus {
	s := &v1.PodStatus{Phase: phase, ContainerStatuses: make([]v1.ContainerStatus, 2)}
	for i := range running {
		s.ContainerStatuses[i].State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(at(5))}
	}
	for _, seconds := range init {
		s.InitContainerStatuses = append(s.InitContainerStatuses, v1.ContainerStatus{
			State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
				StartedAt:  metav1.NewTime(at(1)),
				FinishedAt: metav1.NewTime(at(1 + seconds)),
			}},
		})
	}
	return s
}

func TestTheIndicatorIsWithoutPullsAndInitContainers(t *testing.T) {
	var c Clock
	p := pod()
	c.See(p, at(1))

	// Two pulls that overlap for a second, and one apart.
	c.Pulled(at(2), at(4))
	c.Pulled(at(3), at(5))
	c.Pulled(at(7), at(8))

	if got := c.Shown(p, shows(v1.PodPending, 0), at(8)); got != (Start{}) {
		t.Errorf("pending: %+v", got)
	}

	got := c.Shown(p, shows(v1.PodRunning, 1, 2), at(10))
	if want := (Start{Runs: true, SinceSeen: 9 * time.Second}); got != want {
		t.Errorf("one of two containers runs: %+v, want %+v", got, want)
	}

	got = c.Shown(p, shows(v1.PodRunning, 2, 2), at(12))
	want := Start{
		Complete:     true,
		SinceCreated: 12 * time.Second,
		SLI:          6 * time.Second,
		Network:      true,
	}
	if got != want {
		t.Errorf("all run: %+v, want %+v", got, want)
	}

	if got := c.Shown(p, shows(v1.PodRunning, 2, 2), at(13)); got != (Start{}) {
		t.Errorf("once more: %+v", got)
	}
}

func TestOnlyStartsThatBeginBeforeOurEyesAreMeasured(t *testing.T) {
	older := pod()
	older.Status.StartTime = new(metav1.NewTime(at(0)))
	waited := pod()
	waited.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionFalse}}

	for name, p := range map[string]*v1.Pod{"older than the agent": older, "had to wait for room": waited} {
		var c Clock
		c.See(p, at(1))
		if got := c.Shown(p, shows(v1.PodRunning, 2), at(2)); got != (Start{}) {
			t.Errorf("%s: %+v", name, got)
		}
	}

	// Ended before all ran: there is no start to measure.
	var c Clock
	c.See(pod(), at(1))
	c.Shown(pod(), shows(v1.PodFailed, 0), at(2))
	if got := c.Shown(pod(), shows(v1.PodRunning, 2), at(3)); got != (Start{}) {
		t.Errorf("ended: %+v", got)
	}
}

func TestPodsWithOtherVolumesAreStateful(t *testing.T) {
	for name, c := range map[string]struct {
		source v1.VolumeSource
		want   bool
	}{
		"emptyDir":  {v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}, false},
		"projected": {v1.VolumeSource{Projected: &v1.ProjectedVolumeSource{}}, false},
		"hostPath":  {v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{}}, true},
		"claim":     {v1.VolumeSource{PersistentVolumeClaim: &v1.PersistentVolumeClaimVolumeSource{}}, true},
	} {
		p := pod()
		p.Spec.Volumes = []v1.Volume{{VolumeSource: c.source}}
		var clock Clock
		clock.See(p, at(1))
		if got := clock.Shown(p, shows(v1.PodRunning, 2), at(2)); !got.Complete || got.Stateful != c.want {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

// look is one that was asked for at a second, and began and ended half a second later.
func look(kind string, second float64, steps int) Look {
	return Look{
		Kind:  kind,
		Asked: at(second),
		Began: at(second + .5),
		Ended: at(second + .75),
		Steps: steps,
	}
}

func TestARoundLastsUntilAllItsStepsHaveEnded(t *testing.T) {
	var r Rounds

	// The first look begins two steps, and the next one a third.
	if round, over := r.Look(look(Update, 0, 2)); over {
		t.Errorf("steps run: %+v", round)
	}
	if round, over := r.Look(look(Sync, 1, 3)); over {
		t.Errorf("steps run: %+v", round)
	}
	for left := 2; left > 0; left-- {
		if round, over := r.Ended(at(2), left); over {
			t.Errorf("%d steps are left: %+v", left, round)
		}
	}
	first := Round{Kind: Create, Took: 2500 * time.Millisecond, Waited: 500 * time.Millisecond}
	if round, over := r.Ended(at(3), 0); !over || round != first {
		t.Errorf("the first round: %+v, %v", round, over)
	}

	// A look that finds nothing to do is a round of its own.
	nothing := Round{Kind: Sync, Took: 250 * time.Millisecond}
	if round, over := r.Look(look(Sync, 4, 0)); !over || round != nothing {
		t.Errorf("nothing to do: %+v, %v", round, over)
	}

	r.Look(look(Kill, 5, 1))
	if round, over := r.Ended(at(7), 0); !over || round.Kind != Kill {
		t.Errorf("the end: %+v, %v", round, over)
	}
}
