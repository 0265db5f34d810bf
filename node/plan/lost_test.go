package plan_test

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
)

// shown is a container that the API shows: as running since t0, or as ended with a code.
func shown(name string, code *int32) v1.ContainerStatus {
	s := v1.ContainerStatus{Name: name}
	if code == nil {
		s.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(t0)}
		return s
	}
	s.State.Terminated = &v1.ContainerStateTerminated{
		ExitCode:   *code,
		StartedAt:  metav1.NewTime(t0),
		FinishedAt: metav1.NewTime(t0),
	}
	return s
}

func all(s ...v1.ContainerStatus) []v1.ContainerStatus { return s }

// starts ends steps until something starts, and returns what does.
func (w *world) starts() (out []plan.Step) {
	for range 5 {
		for _, s := range w.look(nil).Steps {
			if s.Verb == plan.Start {
				out = append(out, s)
			}

			w.end(s, nil)
		}

		if len(out) > 0 {
			return out
		}
	}

	return nil
}

// rebooted are pods of which only the API knows what has run.
var rebooted = []struct {
	name  string
	pod   *v1.Pod
	inits []v1.ContainerStatus
	apps  []v1.ContainerStatus

	// starts is the container that is started; empty: the pod ends.
	starts string
}{
	{
		name: "Never, ran",
		pod:  podOf("Never", "a"),
		apps: all(shown("a", nil)),
	},
	{
		name: "Never, one of two",
		pod:  podOf("Never", "a", "b"),
		apps: all(shown("a", nil)),
	},
	{
		name:  "Never, an init container had failed",
		pod:   podOf("Never", "init:i", "a"),
		inits: all(shown("i", new(int32(1)))),
	},
	{
		name: "OnFailure, succeeded",
		pod:  podOf("OnFailure", "a"),
		apps: all(shown("a", new(int32(0)))),
	},
	{
		name:   "OnFailure, some succeeded",
		pod:    podOf("OnFailure", "a", "b", "c"),
		apps:   all(shown("a", new(int32(0))), shown("b", nil), shown("c", new(int32(0)))),
		starts: "b",
	},
	{
		name:   "Always, succeeded",
		pod:    podOf("Always", "a"),
		apps:   all(shown("a", new(int32(0)))),
		starts: "a",
	},
}

func TestWhatOnlyTheAPIKnowsToHaveRunIsOver(t *testing.T) {
	for _, c := range rebooted {
		t.Run(c.name, func(t *testing.T) {
			c.pod.Status.InitContainerStatuses = c.inits
			c.pod.Status.ContainerStatuses = c.apps
			w := newWorld(c.pod)
			if got := w.look(nil).View.Ending; got != (c.starts == "") {
				t.Fatalf("ending %v, want %v", got, !got)
			}
			if c.starts == "" {
				return
			}

			for _, s := range slices.Clone(w.flying) {
				w.end(s, nil)
			}

			started := w.starts()
			if len(started) != 1 || started[0].Name != c.starts || started[0].Attempt != 1 {
				t.Errorf("starts %+v, want %s with one attempt more than the API shows", started, c.starts)
			}
		})
	}
}

// Restarting all containers removes them from the sandbox in which they ran. The API shows what they were for
// a while.
func TestWhatWasRemovedFromItsSandboxStartsFromTheBeginning(t *testing.T) {
	pod := podOf("Never", "a")
	if err := option(&pod.Spec.Containers[0], "restart-all-on:7"); err != nil {
		t.Fatal(err)
	}
	pod.Status.ContainerStatuses = all(shown("a", new(int32(7))))
	w := newWorld(pod)
	w.node.Sandboxes = []plan.Sandbox{{ID: "s", Ready: true, Created: t0}}
	w.now = t0.Add(time.Hour)
	if started := w.starts(); len(started) != 1 || started[0].ID != "s" {
		t.Errorf("starts %+v", started)
	}
}

// A reboot in the middle of it changes nothing: what the API shows to have ended for good starts, too.
func TestAllContainersAreRestartedAfterAReboot(t *testing.T) {
	restarting := v1.PodCondition{Type: v1.AllContainersRestarting, Status: v1.ConditionTrue}
	for name, shows := range map[string]v1.PodStatus{
		"the rule fits": {ContainerStatuses: all(shown("a", new(int32(7))), shown("b", new(int32(0))))},
		"the condition is true": {
			ContainerStatuses: all(shown("a", nil), shown("b", new(int32(0)))),
			Conditions:        []v1.PodCondition{restarting},
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod := podOf("Never", "a", "b")
			pod.Spec.Containers[0].RestartPolicyRules = restartAllOn(7)
			pod.Status = shows
			w := newWorld(pod)

			var got []string
			for range 5 {
				for _, s := range w.starts() {
					got = append(got, describe(s))
				}
			}

			if diff := cmp.Diff([]string{"start/a #1", "start/b #1"}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheNextAttemptFollowsTheLogsOfAPodThatNothingElseKnows(t *testing.T) {
	w := newWorld(podOf("Always", "a"))
	w.node.Logged = map[string]uint32{"a": 3}
	if started := w.starts(); len(started) != 1 || started[0].Attempt != 3 {
		t.Errorf("starts %+v, want attempt 3", started)
	}
}

// What the annotations hold is enough to stop a container whose pod is gone from the API.
func TestAPodThatOnlyTheRuntimeKnowsIsStoppedByItsAnnotations(t *testing.T) {
	w := newWorld(podOf("Always"))
	w.gone = true
	w.node.Sandboxes = []plan.Sandbox{{ID: "s", Ready: true, Annotations: map[string]string{"k": "v"}}}
	w.node.Containers = []plan.Container{{
		ID:        "c",
		Name:      "app",
		SandboxID: "s",
		State:     plan.Running,
		Grace:     12,
		PreStop:   `{"exec":{"command":["bye"]}}`,
		Ports:     `[{"name":"web","containerPort":80}]`,
	}}

	d := w.look(nil)
	if len(d.Steps) != 1 || d.Steps[0].Verb != plan.Stop || d.Steps[0].Grace != 12*time.Second {
		t.Fatalf("steps %+v, want a stop within 12 s", d.Steps)
	}

	pod := d.View.Pod
	c := pod.Spec.Containers[0]
	if pod.Annotations["k"] != "v" || c.Lifecycle.PreStop.Exec.Command[0] != "bye" ||
		c.Ports[0].ContainerPort != 80 {
		t.Errorf("pod %+v", pod)
	}
}
