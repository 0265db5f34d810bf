package plan

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var t0 = time.Unix(1_800_000_000, 0)

func podOf(policy v1.RestartPolicy, names ...string) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p", Namespace: "n"},
		Spec:       v1.PodSpec{RestartPolicy: policy},
	}

	for _, n := range names {
		switch kind, name, _ := strings.Cut(n, ":"); kind {
		case "init":
			p.Spec.InitContainers = append(p.Spec.InitContainers, v1.Container{Name: name, Image: name})
		case "side":
			p.Spec.InitContainers = append(
				p.Spec.InitContainers,
				v1.Container{Name: name, Image: name, RestartPolicy: new(v1.ContainerRestartPolicyAlways)},
			)

		default:
			p.Spec.Containers = append(p.Spec.Containers, v1.Container{Name: n, Image: n})
		}
	}

	return p
}

// input is a pod whose volumes are mounted and whose images are here.
func input(p *v1.Pod) Input {
	in := Input{Pod: p, Now: t0, Memory: Memory{
		Mounted:  true,
		Prepared: true,
		Images:   map[string]string{},
		InFlight: map[string]bool{},
		Failures: map[string]Failure{},
		Backoffs: map[string]Backoff{},
		Health:   map[string]Health{},
		Stopped:  map[string]bool{},
	}}

	for _, c := range slices.Concat(p.Spec.InitContainers, p.Spec.Containers) {
		in.Memory.Images[c.Name] = c.Image
	}

	return in
}

func sandbox(ready bool) []Sandbox { return []Sandbox{{ID: "s", Ready: ready, Created: t0}} }

func instance(name string, state State, code int32) Container {
	return Container{
		ID:        name + "0",
		Name:      name,
		SandboxID: "s",
		State:     state,
		ExitCode:  code,
		Created:   t0,
		Started:   t0,
		Finished:  t0,
		Hash:      Hash(&v1.Container{Name: name, Image: name}),
	}
}

func keys(d Decision) []string {
	out := []string{}
	for _, s := range d.Steps {
		out = append(out, s.Key())
	}
	slices.Sort(out)
	return out
}

func TestNextSteps(t *testing.T) {
	for _, c := range []struct {
		name string
		pod  *v1.Pod
		mod  func(*Input)
		want []string
	}{
		{"a new pod is prepared in parallel", podOf("Always",
			"a", "b"), func(in *Input) { in.Memory.Prepared = false; clear(in.Memory.Images) },
			[]string{"create-sandbox", "prepare", "pull/a", "pull/b"}},
		{"nothing starts before volumes are there", podOf("Always", "a"), func(in *Input) {
			in.Memory.Mounted, in.Memory.Prepared = false, false
			in.Observed.Sandboxes = sandbox(true)
		}, []string{"prepare"}},
		{"volumes that cannot be brought up to date hold up no restart", podOf("Always",
			"a"), func(in *Input) {
			in.Memory.Prepared = false
			in.Memory.Failures["prepare"] = Failure{Retry: t0.Add(time.Second)}
			in.Observed = Observed{sandbox(true), []Container{instance("a", Exited, 1)}}
		}, []string{"start/a"}},
		{
			"application containers start in order",
			podOf("Always", "a", "b"),
			func(in *Input) { in.Observed.Sandboxes = sandbox(true) },
			[]string{"start/a"},
		},
		{"the next one follows", podOf("Always", "a", "b"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("a", Running, 0)}}
		}, []string{"start/b"}},
		{"an image that cannot be pulled does not hold up the next container", podOf("Always",
			"a", "b"), func(in *Input) {
			in.Observed.Sandboxes = sandbox(true)
			delete(in.Memory.Images, "a")
			in.Memory.Failures["pull/a"] = Failure{Retry: t0.Add(time.Second)}
		}, []string{"start/b"}},
		{"an image that was changed before the container started is pulled first", podOf("Always",
			"a"), func(in *Input) {
			in.Observed.Sandboxes = sandbox(true)
			in.Pod.Spec.Containers[0].Image = "other"
		}, []string{"pull/a"}},
		{
			"init containers run one by one",
			podOf("Always", "init:i", "init:j", "a"),
			func(in *Input) { in.Observed.Sandboxes = sandbox(true) },
			[]string{"start/i"},
		},
		{"the second after the first", podOf("Always", "init:i", "init:j", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("i", Exited, 0)}}
		}, []string{"start/j"}},
		{"a sidecar gates what follows until it is started", podOf("Always", "side:s", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("s", Running, 0)}}
		}, []string{}},
		{"a started sidecar lets the application start", podOf("Always", "side:s", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("s", Running, 0)}}
			in.Memory.Health["s0"] = Health{Started: true}
		}, []string{"start/a"}},
		{"a sidecar that died is started again beside the application", podOf("Always",
			"side:s", "a"), func(in *Input) {
			in.Observed = Observed{
				sandbox(true),
				[]Container{instance("s", Exited, 1), instance("a", Running, 0)},
			}
		}, []string{"start/s"}},
		{"a failed init container ends a pod that never restarts", podOf("Never",
			"init:i", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("i", Exited, 1)}}
		}, []string{"stop-sandbox/s"}},
		{"the sidecar of a finished pod is stopped", podOf("Never", "side:s", "a"), func(in *Input) {
			in.Observed = Observed{
				sandbox(true),
				[]Container{instance("s", Running, 0), instance("a", Exited, 0)},
			}
		}, []string{"stop/s0"}},
		{"a failed liveness probe stops the container", podOf("Always", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("a", Running, 0)}}
			in.Memory.Health["a0"] = Health{Unhealthy: "Liveness"}
		}, []string{"stop/a0"}},
		{"a changed image replaces the container", podOf("Always", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("a", Running, 0)}}
			in.Pod.Spec.Containers[0].Image = "other"
		}, []string{"stop/a0"}},
		{"a lost sandbox is stopped", podOf("Always",
			"a"), func(in *Input) {
			in.Observed = Observed{
				sandbox(false),
				[]Container{instance("a", Exited, 137)},
			}
		},
			[]string{"stop-sandbox/s"}},
		{"then replaced", podOf("Always", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(false), []Container{instance("a", Exited, 137)}}
			in.Memory.Stopped["s"] = true
		}, []string{"create-sandbox"}},
		{"a dead sandbox that holds nothing is removed", podOf("Always", "a"), func(in *Input) {
			in.Observed = Observed{append(
				sandbox(true),
				Sandbox{ID: "empty", Created: t0.Add(-2)},
				Sandbox{ID: "found dead", Created: t0.Add(-3)},
				Sandbox{ID: "holds", Created: t0.Add(-1)},
			),
				[]Container{instance("a", Running, 0), {
					ID:        "a-1",
					Name:      "a",
					SandboxID: "holds",
					State:     Exited,
					Created:   t0.Add(-1),
				}}}

			in.Memory.Stopped["empty"], in.Memory.Stopped["holds"] = true, true
		}, []string{"remove-sandbox/empty", "stop-sandbox/found dead"}},
		{"a pod that never restarts gets no second sandbox", podOf("Never", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(false), []Container{instance("a", Unknown, 0)}}
			in.Memory.Reported, in.Memory.Stopped["s"] = true, true
		}, []string{"teardown"}},
		{"a container that was never started is removed first", podOf("Always", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(true), []Container{instance("a", Created, 0)}}
		}, []string{"remove/a0"}},
		{"deletion stops application containers at once and leaves sidecars", deleted(podOf("Always",
			"side:s", "a", "b")), func(in *Input) {
			in.Observed = Observed{
				sandbox(true),
				[]Container{instance("s", Running, 0), instance("a", Running, 0), instance("b", Running, 0)},
			}
		}, []string{"stop/a0", "stop/b0"}},
		{"then sidecars, the last one first", deleted(podOf("Always",
			"side:s", "side:t", "a")), func(in *Input) {
			in.Observed = Observed{
				sandbox(true),
				[]Container{instance("s", Running, 0), instance("t", Running, 0), instance("a", Exited, 0)},
			}
		}, []string{"stop/t0"}},
		{"the sandbox after the containers", deleted(podOf("Always",
			"a")), func(in *Input) {
			in.Observed = Observed{
				sandbox(true),
				[]Container{instance("a", Exited, 0)},
			}
		},
			[]string{"stop-sandbox/s"}},
		{"nothing is torn down before its end is reported", deleted(podOf("Always", "a")), func(in *Input) {
			in.Observed = Observed{sandbox(false), []Container{instance("a", Exited, 0)}}
			in.Memory.Stopped["s"] = true
		}, []string{}},
		{
			"the object goes last",
			deleted(podOf("Always", "a")),
			func(in *Input) { in.Memory.TornDown, in.Memory.Reported = true, true },
			[]string{"finalize"},
		},
		{
			"a pod that is gone is taken down and forgotten",
			podOf("Always", "a"),
			func(in *Input) { in.Memory.Gone, in.Memory.TornDown = true, true },
			[]string{"forget"},
		},
		{"a pod that ended keeps its containers for their logs", podOf("Never", "a"), func(in *Input) {
			in.Observed = Observed{sandbox(false), []Container{instance("a", Exited, 0)}}
			in.Memory.TornDown, in.Memory.Reported, in.Memory.Stopped["s"] = true, true, true
		}, []string{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := input(c.pod)
			c.mod(&in)
			if diff := cmp.Diff(c.want, keys(Decide(in))); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

func deleted(p *v1.Pod) *v1.Pod {
	p.DeletionTimestamp = &metav1.Time{Time: t0.Add(30 * time.Second)}
	p.DeletionGracePeriodSeconds = new(int64(30))
	return p
}

func TestALateSidecarMayStillEndByItself(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		20 * time.Second: 20 * time.Second,
		-time.Second:     LeastGrace,
	} {
		in := input(deleted(podOf("Always", "side:s", "a")))
		in.Observed = Observed{
			sandbox(true),
			[]Container{instance("s", Running, 0), instance("a", Exited, 137)},
		}

		in.Pod.DeletionTimestamp = &metav1.Time{Time: t0.Add(left)}
		if steps := Decide(in).Steps; len(steps) != 1 || steps[0].Grace != want {
			t.Errorf("with %s left: %+v, want a stop within %s", left, steps, want)
		}
	}
}

func TestBackoffGrowsAndIsForgotten(t *testing.T) {
	var b Backoff
	if at := b.Until(t0, t0, MaxBackoff); !at.IsZero() {
		t.Errorf("the first restart waits until %v", at)
	}

	now, got := t0, []time.Duration{}
	for range 7 {
		b = b.Next(now, MaxBackoff)
		got = append(got, b.Delay/time.Second)
		now = now.Add(b.Delay)
	}

	if diff := cmp.Diff([]time.Duration{10, 20, 40, 80, 160, 300, 300}, got); diff != "" {
		t.Error(diff)
	}
	if at := b.Until(now, now, MaxBackoff); at.Sub(now) != MaxBackoff {
		t.Errorf("waits until %v", at)
	}

	later := now.Add(2*MaxBackoff + time.Second)
	if b.Next(later, MaxBackoff).Delay != FirstBackoff {
		t.Error("ten minutes without a crash are not forgotten")
	}
}

func TestRestartRulesComeBeforePolicies(t *testing.T) {
	pod := podOf("Never", "a")
	c := &pod.Spec.Containers[0]
	c.RestartPolicy = new(v1.ContainerRestartPolicyNever)
	c.RestartPolicyRules = []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestart,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{42},
		}}}
	if !ShouldRestart(pod, c, 42) || ShouldRestart(pod, c, 1) {
		t.Error("exit 42 must restart, exit 1 must not")
	}
}

func TestRestartAllContainersBeginsThePodAnew(t *testing.T) {
	in := input(podOf("Always", "init:i", "side:s", "a", "b"))
	in.Pod.Spec.Containers[0].RestartPolicyRules = []v1.ContainerRestartRule{{Action: v1.ContainerRestartRuleActionRestartAllContainers,
		ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
			Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
			Values:   []int32{42},
		}}}

	in.Observed = Observed{
		sandbox(true),
		[]Container{
			instance("i", Exited, 0),
			instance("s", Running, 0),
			instance("a", Exited, 42),
			instance("b", Running, 0),
		},
	}

	w := &world{t: t, in: in}
	var trace []string
	for range 20 {
		d := Decide(w.in)
		w.check(d)
		if slices.ContainsFunc(d.Steps, func(s Step) bool { return s.Verb == Start }) {
			trace = append(trace, keys(d)...)
			break
		}

		trace = append(trace, keys(d)...)
		for _, s := range d.Steps {
			w.apply(s)
		}
	}

	want := []string{"stop/b0", "stop/s0", "remove/b0", "remove/i0", "remove/s0", "remove/a0", "start/i"}
	if diff := cmp.Diff(want, trace); diff != "" {
		t.Error(diff)
	}
}

func TestDeadlineEndsThePod(t *testing.T) {
	in := input(podOf("Always", "a"))
	in.Pod.Spec.ActiveDeadlineSeconds = new(int64(5))
	in.Pod.Status.StartTime = &metav1.Time{Time: t0}
	if d := Decide(in); d.Deadline || d.Requeue != t0.Add(5*time.Second) {
		t.Errorf("before: %+v", d)
	}
	in.Now = t0.Add(5 * time.Second)
	if d := Decide(in); !d.Deadline {
		t.Errorf("after: %+v", d)
	}
}

func FuzzDecideNeverPanics(f *testing.F) {
	f.Add(uint8(1), uint8(2), uint8(3), true)
	f.Fuzz(func(t *testing.T, a, b, c uint8, gone bool) {
		in := input(podOf("Always", "init:i", "side:s", "a"))
		in.Observed.Sandboxes = sandbox(a%2 == 0)
		in.Observed.Containers = []Container{
			instance("i", State(a%4), int32(b)),
			instance("s", State(b%4), int32(c)),
			instance("a", State(c%4), int32(a)),
			instance("x", State(a%4), 0),
		}

		in.Memory.Gone = gone
		Decide(in)
	})
}
