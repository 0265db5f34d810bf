package status

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"

	"github.com/trivet-node/trivet/node/plan"
)

var now = time.Unix(1_800_000_000, 0)

// podOf makes a pod of init containers, sidecars among them ("side:NAME"), and application containers.
func podOf(policy v1.RestartPolicy, inits, mains []string) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name:       "p",
			Namespace:  "n",
			UID:        "u",
			Generation: 3,
		},
		Spec: v1.PodSpec{RestartPolicy: policy},
	}

	for _, n := range inits {
		name, side := strings.CutPrefix(n, "side:")
		c := v1.Container{Name: name, Image: name}
		if side {
			c.RestartPolicy = new(v1.ContainerRestartPolicyAlways)
		}

		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}

	for _, n := range mains {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: n, Image: n})
	}

	return p
}

// viewOf is the plan's view of a pod whose running containers are healthy. mod prepares what the plan knows.
func viewOf(p *v1.Pod, o plan.Observed, mod func(*plan.Pod)) *plan.View {
	known := plan.New(p.UID, 0)
	known.Want(p)
	known.End(plan.Step{Verb: plan.Prepare}, nil, now)
	if mod != nil {
		mod(known)
	}

	known.Look()

	health := map[string]plan.Health{}
	for _, c := range o.Containers {
		health[c.ID] = plan.Health{Started: true, Ready: true}
	}

	o.Mounted = true
	known.See(o)
	d := known.Decide(health, now)
	return &d.View
}

func compute(p *v1.Pod, o plan.Observed, mod func(*plan.Pod)) v1.PodStatus {
	return Compute(viewOf(p, o, mod), Node{IPs: []string{"192.0.2.1"}, Runtime: "rt"})
}

func up() []plan.Sandbox {
	return []plan.Sandbox{{ID: "s", Ready: true, IPs: []string{"10.0.0.2", "fd00::2"}}}
}

func instance(name string, attempt uint32, state plan.State, code int32) plan.Container {
	return plan.Container{
		ID:        name + string(rune('0'+attempt)),
		Name:      name,
		SandboxID: "s",
		Attempt:   attempt,
		State:     state,
		ExitCode:  code,
		Created:   now.Add(time.Duration(attempt) * time.Second),
		Started:   now,
		Finished:  now,
	}
}

// is returns a condition's status and reason, as "STATUS REASON".
func is(s v1.PodStatus, t v1.PodConditionType) string {
	c := condition(s.Conditions, t)
	return string(c.Status) + " " + c.Reason
}

// observed is a node with a sandbox that is ready and these instances.
func observed(instances ...plan.Container) plan.Observed {
	return plan.Observed{Sandboxes: up(), Containers: instances}
}

// phases are pods, with what is seen of them, and what their status shows then.
var phases = []struct {
	name        string
	pod         *v1.Pod
	seen        plan.Observed
	phase       v1.PodPhase
	initialized string
	ready       string
}{
	{
		name:        "new",
		pod:         podOf("Always", nil, []string{"a"}),
		phase:       v1.PodPending,
		initialized: "True ",
		ready:       "False ContainersNotReady",
	},
	{
		name:        "running",
		pod:         podOf("Always", nil, []string{"a"}),
		seen:        observed(instance("a", 0, plan.Running, 0)),
		phase:       v1.PodRunning,
		initialized: "True ",
		ready:       "True ",
	},
	{
		name:        "initialising",
		pod:         podOf("Always", []string{"i"}, []string{"a"}),
		seen:        observed(instance("i", 0, plan.Running, 0)),
		phase:       v1.PodPending,
		initialized: "False ContainersNotInitialized",
		ready:       "False ContainersNotReady",
	},
	{
		name:        "init failed for good",
		pod:         podOf("Never", []string{"i"}, []string{"a"}),
		seen:        observed(instance("i", 0, plan.Exited, 1)),
		phase:       v1.PodFailed,
		initialized: "False ContainersNotInitialized",
		ready:       "False PodFailed",
	},
	{
		name:        "succeeded",
		pod:         podOf("Never", nil, []string{"a"}),
		seen:        observed(instance("a", 0, plan.Exited, 0)),
		phase:       v1.PodSucceeded,
		initialized: "True PodCompleted",
		ready:       "False PodCompleted",
	},
	{
		name:        "a sidecar still runs",
		pod:         podOf("Never", []string{"side:s"}, []string{"a"}),
		seen:        observed(instance("s", 0, plan.Running, 0), instance("a", 0, plan.Exited, 0)),
		phase:       v1.PodRunning,
		initialized: "True ",
		ready:       "False ContainersNotReady",
	},
	{
		name:        "one of two ended",
		pod:         podOf("Never", nil, []string{"a", "b"}),
		seen:        observed(instance("a", 0, plan.Running, 0), instance("b", 0, plan.Exited, 1)),
		phase:       v1.PodRunning,
		initialized: "True ",
		ready:       "False ContainersNotReady",
	},
}

func TestPhasesAndConditions(t *testing.T) {
	for _, c := range phases {
		t.Run(c.name, func(t *testing.T) {
			s := compute(c.pod, c.seen, nil)
			initialized := is(s, v1.PodInitialized)
			ready := is(s, v1.PodReady)
			if s.Phase != c.phase || initialized != c.initialized || ready != c.ready {
				t.Errorf("phase %s, initialized %q, ready %q; want %s, %q, %q",
					s.Phase, initialized, ready, c.phase, c.initialized, c.ready)
			}

			for _, x := range s.Conditions {
				if x.ObservedGeneration != 3 {
					t.Errorf("condition %s is of generation %d", x.Type, x.ObservedGeneration)
				}
			}
		})
	}
}

func TestContainersCanBeStartedWhileTheSandboxIsReadyAndThePodHasNotEnded(t *testing.T) {
	p := podOf(v1.RestartPolicyNever, nil, []string{"a"})
	stopped := up()
	stopped[0].Ready = false
	for name, c := range map[string]struct {
		seen plan.Observed
		want string
	}{
		"no sandbox":      {plan.Observed{}, "False PodSandboxNotReady"},
		"sandbox":         {observed(), "True "},
		"running":         {observed(instance("a", 0, plan.Running, 0)), "True "},
		"sandbox stopped": {plan.Observed{Sandboxes: stopped}, "False PodSandboxNotReady"},
		"ended":           {observed(instance("a", 0, plan.Exited, 1)), "False PodSandboxNotReady"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := is(compute(p, c.seen, nil), v1.PodReadyToStartContainers); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestAStatusThatIsComputedAgainIsTheSame(t *testing.T) {
	for _, c := range phases {
		t.Run(c.name, func(t *testing.T) {
			s := compute(c.pod, c.seen, nil)
			again := *c.pod
			again.Status = s
			if next := compute(&again, c.seen, nil); !Equal(&s, &next) {
				t.Errorf("not stable:\n%+v\n%+v", s, next)
			}
		})
	}
}

func TestContainersOfAPodThatNeverInitialisedAreWaiting(t *testing.T) {
	s := compute(
		podOf("Never", []string{"i", "j"}, []string{"a"}),
		plan.Observed{Sandboxes: up(), Containers: []plan.Container{instance("i", 0, plan.Exited, 1)}},
		nil,
	)
	for _, c := range []v1.ContainerStatus{s.InitContainerStatuses[1], s.ContainerStatuses[0]} {
		if c.State.Waiting == nil || c.State.Waiting.Reason != reasonInitializing {
			t.Errorf("%s: %+v", c.Name, c.State)
		}
	}
}

func TestCrashLoopIsShownWithTheLastExit(t *testing.T) {
	o := plan.Observed{
		Sandboxes:  up(),
		Containers: []plan.Container{instance("a", 0, plan.Exited, 1), instance("a", 1, plan.Exited, 2)},
	}

	s := compute(podOf("Always", nil, []string{"a"}), o, func(p *plan.Pod) {
		// It has been restarted twice.
		for range 2 {
			p.End(plan.Step{Verb: plan.Start, Name: "a", Restart: true}, nil, now)
		}
	})

	c := s.ContainerStatuses[0]
	if c.RestartCount != 1 || c.State.Waiting == nil ||
		c.State.Waiting.Message != "back-off 20s restarting failed container=a pod=p_n(u)" ||
		c.LastTerminationState.Terminated.ExitCode != 2 {
		t.Errorf("%+v", c)
	}
}

func TestTerminationMessagesOfManyContainersAreCut(t *testing.T) {
	p, o := podOf("Never", nil, nil), plan.Observed{Sandboxes: up()}
	for i := range 6 {
		name := string(rune('a' + i))
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: name, Image: name})
		ended := instance(name, 0, plan.Exited, 1)
		ended.Message = "x" + strings.Repeat("ä", 2000)
		o.Containers = append(o.Containers, ended)
	}

	for _, c := range compute(p, o, nil).ContainerStatuses {
		// 2 KiB each, less half a character
		if got := c.State.Terminated.Message; len(got) != 2047 || !utf8.ValidString(got) {
			t.Errorf("%s: %d bytes, valid %v", c.Name, len(got), utf8.ValidString(got))
		}
	}
}

func TestAContainerTheRuntimeLostIsUnknown(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	p.DeletionTimestamp = &metav1.Time{Time: now}
	p.Status.ContainerStatuses = []v1.ContainerStatus{
		{Name: "a", RestartCount: 2, State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}},
	}
	s := compute(p, plan.Observed{}, nil)
	if got := s.ContainerStatuses[0].State.Terminated; s.Phase != v1.PodFailed || got == nil ||
		got.Reason != reasonUnknown || got.ExitCode != 137 {
		t.Errorf("phase %s, %+v", s.Phase, got)
	}
}

func TestReadinessGatesAndForeignConditionsAreKept(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	p.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "example.com/gate"}}
	o := plan.Observed{Sandboxes: up(), Containers: []plan.Container{instance("a", 0, plan.Running, 0)}}
	if got := is(compute(p, o, nil), v1.PodReady); got != "False ReadinessGatesNotReady" {
		t.Errorf("without the gate: %q", got)
	}

	p.Status.Conditions = []v1.PodCondition{{Type: "example.com/gate", Status: v1.ConditionTrue}}
	s := compute(p, o, nil)
	if got := is(s, v1.PodReady); got != "True " {
		t.Errorf("with the gate: %q", got)
	}

	if before := compute(podOf("Always", nil, []string{"a"}), o, nil); SameForeign(&before, &s) ||
		SameForeign(&s, &before) || !SameForeign(&s, &p.Status) {
		t.Error("the gate is of others, and nothing else is")
	}

	patch, err := Patch(p, &s)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(patch), "example.com/gate") || !strings.Contains(string(patch), `"uid":"u"`) {
		t.Errorf("the patch writes what is not ours, or lacks the UID: %s", patch)
	}

	var m map[string]any
	if err := json.Unmarshal(patch, &m); err != nil {
		t.Fatal(err)
	}
}

func TestPatchClearsTheReasonOfAConditionThatHasBecomeTrue(t *testing.T) {
	p := podOf("Always", nil, []string{"a"})
	waiting := compute(p, plan.Observed{}, nil)
	p.Status = waiting
	if c := condition(waiting.Conditions, v1.PodReady); c.Reason == "" {
		t.Fatalf("a pod that waits has no reason: %+v", c)
	}

	running := compute(p, plan.Observed{
		Sandboxes:  up(),
		Containers: []plan.Container{instance("a", 0, plan.Running, 0)},
	}, nil)

	patch, err := Patch(p, &running)
	if err != nil {
		t.Fatal(err)
	}

	before, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}

	merged, err := strategicpatch.StrategicMergePatch(before, patch, v1.Pod{})
	if err != nil {
		t.Fatal(err)
	}

	var after v1.Pod
	if err := json.Unmarshal(merged, &after); err != nil {
		t.Fatal(err)
	}

	for _, c := range after.Status.Conditions {
		if c.Status == v1.ConditionTrue && c.Reason+c.Message != "" {
			t.Errorf("%s is True and still says %s: %s", c.Type, c.Reason, c.Message)
		}
	}

	if c := condition(after.Status.Conditions, v1.PodReady); c.Status != v1.ConditionTrue {
		t.Errorf("the pod runs and is not Ready: %+v", c)
	}
}

func TestARejectedPodHasNothingButTheReason(t *testing.T) {
	s := compute(podOf("Always", nil, []string{"a"}), plan.Observed{}, func(p *plan.Pod) {
		p.Terminate(plan.Ending{Reason: "OutOfcpu", Message: "no", At: now})
	})
	if s.Phase != v1.PodFailed || s.Reason != "OutOfcpu" || len(s.ContainerStatuses) != 0 {
		t.Errorf("%+v", s)
	}
}
