package plan

import (
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// shown is a container that the API shows: as running since t0, or as ended with a code.
func shown(name string, restarts int32, code *int32) v1.ContainerStatus {
	s := v1.ContainerStatus{Name: name, RestartCount: restarts}
	if code == nil {
		s.State.Running = &v1.ContainerStateRunning{StartedAt: metav1.NewTime(t0)}
	} else {
		s.State.Terminated = &v1.ContainerStateTerminated{
			ExitCode:   *code,
			StartedAt:  metav1.NewTime(t0),
			FinishedAt: metav1.NewTime(t0),
		}
	}
	return s
}

func all(s ...v1.ContainerStatus) []v1.ContainerStatus { return s }

func TestWhatOnlyTheAPIKnowsToHaveRunIsOver(t *testing.T) {
	zero, one := new(int32(0)), new(int32(1))
	for _, c := range []struct {
		name   string
		pod    *v1.Pod
		inits  []v1.ContainerStatus
		mains  []v1.ContainerStatus
		ending bool
		starts []string
	}{
		{name: "Never, ran", pod: podOf("Never", "a"), mains: all(shown("a", 0, nil)), ending: true},
		{
			name:   "Never, one of two",
			pod:    podOf("Never", "a", "b"),
			mains:  all(shown("a", 0, nil)),
			ending: true,
		},
		{
			name:   "Never, an init container had failed",
			pod:    podOf("Never", "init:i", "a"),
			inits:  all(shown("i", 0, one)),
			ending: true,
		},
		{
			name:   "OnFailure, succeeded",
			pod:    podOf("OnFailure", "a"),
			mains:  all(shown("a", 0, zero)),
			ending: true,
		},
		{
			name:   "OnFailure, some",
			pod:    podOf("OnFailure", "a", "b", "c"),
			starts: []string{"start/b"},
			mains:  all(shown("a", 0, zero), shown("b", 0, nil), shown("c", 0, zero)),
		},
		{
			name:   "Always, succeeded",
			pod:    podOf("Always", "a"),
			mains:  all(shown("a", 0, zero)),
			starts: []string{"start/a"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := Input{Pod: c.pod, Now: t0.Add(time.Hour)}
			in.Memory = Memory{Mounted: true, Prepared: true, Images: map[string]string{}}
			in.Pod.Status.InitContainerStatuses, in.Pod.Status.ContainerStatuses = c.inits, c.mains
			if got := Decide(in).Ending; got != c.ending {
				t.Fatalf("ending %v, want %v", got, c.ending)
			}
			if c.ending {
				return
			}

			in.Observed.Sandboxes = []Sandbox{{ID: "s", Attempt: 0, Ready: true, Created: in.Now}}
			for _, k := range in.Pod.Spec.Containers {
				in.Memory.Images[k.Name] = k.Image
			}

			d := Decide(in)
			if got := keys(d); !slices.Equal(got, c.starts) {
				t.Errorf("steps %v, want %v", got, c.starts)
			}
			if d.Steps[0].Attempt != 1 {
				t.Errorf("attempt %d, want one more than the API shows", d.Steps[0].Attempt)
			}
		})
	}
}

// Restarting all containers removes them from the sandbox in which they ran. The API shows what they were for
// a while.
func TestWhatWasRemovedFromItsSandboxBeginsAnew(t *testing.T) {
	in := Input{Pod: podOf("Never", "a"), Now: t0.Add(time.Hour)}
	in.Observed.Sandboxes = sandbox(true)
	in.Memory = Memory{Mounted: true, Prepared: true, Images: map[string]string{"a": "a"}}
	in.Pod.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{
		Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{7},
		},
	}}

	in.Pod.Status.ContainerStatuses = []v1.ContainerStatus{shown("a", 0, new(int32(7)))}
	if got := keys(Decide(in)); !slices.Equal(got, []string{"start/a"}) {
		t.Errorf("steps %v", got)
	}
}
