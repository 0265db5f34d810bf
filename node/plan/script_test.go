package plan_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/reason"
)

var update = flag.Bool("update", false, "write what happens into the scripts")

// Each file in testdata is the life of one pod. Lines that begin with a word are what happens to the pod, and
// the indented lines below are what the plan does then: the steps that it begins or cancels, when it wants to
// be asked again, and the status where it changes. testdata/README.md explains the words.
func TestPodLives(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}

	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}

			got, err := play(string(want))
			if err != nil {
				t.Fatal(err)
			}

			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}

				return
			}

			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("-script +now (go test ./node/plan -update writes it):\n%s", diff)
			}
		})
	}
}

const indent = "    "

// play plays a script and returns it with what happens now.
func play(script string) (string, error) {
	s := &stage{}
	lines := bufio.NewScanner(strings.NewReader(script))
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		switch {
		case strings.HasPrefix(line, indent):
			continue
		case line == "", strings.HasPrefix(line, "#"):
			s.out.WriteString(line + "\n")
			continue
		}

		s.out.WriteString(line + "\n")
		if err := s.happen(strings.Fields(line)); err != nil {
			return "", fmt.Errorf("line %d: %s: %w", n, line, err)
		}
	}

	return s.out.String(), lines.Err()
}

// stage is where a script is played.
type stage struct {
	*world
	out    strings.Builder
	shown  string    // the status as it was printed last
	wakeAt time.Time // the last decision's
}

func (s *stage) print(format string, a ...any) { fmt.Fprintf(&s.out, indent+format+"\n", a...) }

// happen makes one line of a script happen.
func (s *stage) happen(words []string) error {
	if words[0] == "pod" {
		s.world = newWorld(declared(words[1:]))
		return configure(s.world.api, words[1:])
	}

	if s.world == nil {
		return errors.New("there is no pod yet")
	}

	do := map[string]func(args []string) error{
		"look":             s.lookOnce,
		"run":              s.run,
		"end":              s.endSteps,
		"fail":             s.failStep,
		"exit":             s.exitContainer,
		"probe":            s.probe,
		"wait":             s.wait,
		"wake":             s.wake,
		"delete":           s.delete,
		"image":            s.image,
		"add":              s.add,
		"preempt":          s.preempt,
		"object-changes":   func([]string) error { s.pod.ObjectChanged(); return nil },
		"object-vanishes":  func([]string) error { s.gone = true; return nil },
		"sandbox-dies":     s.sandboxDies,
		"runtime-restarts": s.runtimeRestarts,
		"agent-restarts":   func([]string) error { s.restartAgent(); return nil },
		"node-reboots":     s.nodeReboots,
	}[words[0]]
	if do == nil {
		return errors.New("no such word")
	}

	return do(words[1:])
}

// declared is the pod of a script, without its settings.
func declared(words []string) *v1.Pod {
	pod := podOf(v1.RestartPolicyAlways)
	for _, w := range words {
		if !strings.Contains(w, "=") {
			name, _, _ := strings.Cut(w, "(")
			addContainer(pod, name)
		}
	}
	return pod
}

// configure applies the settings of a pod, and those of containers in parentheses: a(restart-all-on:42).
func configure(pod *v1.Pod, words []string) error {
	for _, w := range words {
		key, value, setting := strings.Cut(w, "=")
		name, options, special := strings.Cut(strings.TrimSuffix(w, ")"), "(")
		switch {
		case setting && key == "restart":
			pod.Spec.RestartPolicy = v1.RestartPolicy(value)
		case setting && (key == "deadline" || key == "grace"):
			d, err := time.ParseDuration(value)
			if err != nil {
				return err
			}

			if key == "deadline" {
				pod.Spec.ActiveDeadlineSeconds = new(int64(d / time.Second))
			} else {
				pod.Spec.TerminationGracePeriodSeconds = new(int64(d / time.Second))
			}

		case setting:
			return fmt.Errorf("no such setting: %s", key)
		case special:
			_, name, _ = cutLast(name, ":")
			if err := option(podspec.Find(pod, name), options); err != nil {
				return err
			}
		}
	}

	return nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

func option(c *v1.Container, words string) error {
	for word := range strings.SplitSeq(words, ",") {
		key, value, _ := strings.Cut(word, ":")
		switch key {
		case "startup-probe":
			c.StartupProbe = &v1.Probe{}
		case "readiness-probe":
			c.ReadinessProbe = &v1.Probe{}
		case "restart-on", "restart-all-on":
			code, err := strconv.Atoi(value)
			if err != nil {
				return err
			}

			rule := v1.ContainerRestartRule{
				Action: v1.ContainerRestartRuleActionRestart,
				ExitCodes: &v1.ContainerRestartRuleOnExitCodes{
					Operator: v1.ContainerRestartRuleOnExitCodesOpIn,
					Values:   []int32{int32(code)},
				},
			}
			if key == "restart-all-on" {
				rule.Action = v1.ContainerRestartRuleActionRestartAllContainers
			}

			c.RestartPolicy = new(v1.ContainerRestartPolicyNever)
			c.RestartPolicyRules = append(c.RestartPolicyRules, rule)

		default:
			return fmt.Errorf("no such option: %s", key)
		}
	}

	return nil
}

// lookOnce looks at the pod, begins the steps and prints what is new.
func (s *stage) lookOnce([]string) error {
	before := slices.Clone(s.flying)
	d := s.look(nil)
	if err := s.check(d, before); err != nil {
		return err
	}

	for _, k := range d.Cancel {
		s.print("cancel %s", k)
	}

	if len(d.Steps) > 0 {
		var steps []string
		for _, step := range d.Steps {
			steps = append(steps, describe(step))
		}

		s.print("begin  %s", strings.Join(steps, ", "))
	}

	s.report(d)
	if now := summary(&s.api.Status); !s.gone && now != s.shown {
		s.shown = now
		s.print("status %s", now)
	}

	if d.Requeue != s.wakeAt && !d.Requeue.IsZero() {
		s.print("again  in %s", d.Requeue.Sub(s.now))
	}

	s.wakeAt = d.Requeue
	return nil
}

// run looks and ends all steps until nothing happens any more.
func (s *stage) run([]string) error {
	for range 100 {
		before := s.api.Status.DeepCopy()
		if err := s.lookOnce(nil); err != nil {
			return err
		}
		if len(s.flying) == 0 && cmp.Equal(before, &s.api.Status) {
			return nil
		}
		if err := s.endSteps([]string{"all"}); err != nil {
			return err
		}
		if s.forgot {
			return nil
		}
	}

	return errors.New("it does not come to rest")
}

// endSteps ends the named steps in flight, or all of them: well, or as cancelled.
func (s *stage) endSteps(args []string) error {
	if args[0] == "all" {
		for _, step := range slices.Clone(s.flying) {
			s.end(step, nil)
		}

		return nil
	}

	for _, key := range args {
		if key == "cancelled" {
			continue
		}

		step, err := s.inFlight(key)
		if err != nil {
			return err
		}

		if args[len(args)-1] == "cancelled" {
			s.end(step, context.Canceled)
		} else {
			s.end(step, nil)
		}
	}

	return nil
}

func (s *stage) inFlight(key string) (plan.Step, error) {
	for _, step := range s.flying {
		if step.Key().String() == key {
			return step, nil
		}
	}
	return plan.Step{}, fmt.Errorf("%s is not in flight", key)
}

// failStep ends a step with an error: fail KEY REASON MESSAGE.
func (s *stage) failStep(args []string) error {
	step, err := s.inFlight(args[0])
	if err != nil {
		return err
	}
	s.end(step, reason.New(args[1], errors.New(strings.Join(args[2:], " "))))
	return nil
}

func (s *stage) exitContainer(args []string) error {
	c := s.running(args[0])
	if c == nil {
		return errors.New("it does not run")
	}
	code, err := strconv.Atoi(args[1])
	if err == nil {
		s.exit(c.ID, int32(code))
	}
	return err
}

// probe plays what a probe finds of a running container.
func (s *stage) probe(args []string) error {
	c := s.running(args[0])
	if c == nil {
		return errors.New("it does not run")
	}

	h := s.health[c.ID]
	switch args[1] {
	case "started":
		h.Started = true
	case "ready":
		h.Ready = true
	case "unready":
		h.Ready = false
	case "fails-liveness":
		h.Unhealthy = plan.FailedLiveness
	case "fails-startup":
		h.Unhealthy = plan.FailedStartup
	default:
		return fmt.Errorf("no such answer: %s", args[1])
	}

	s.health[c.ID] = h
	return nil
}

func (s *stage) wait(args []string) error {
	d, err := time.ParseDuration(args[0])
	s.now = s.now.Add(d)
	return err
}

// wake lets the time pass until the plan wants to be asked again.
func (s *stage) wake([]string) error {
	if s.wakeAt.IsZero() {
		return errors.New("the plan waits for nothing")
	}
	s.now = s.wakeAt
	return nil
}

func (s *stage) delete(args []string) error {
	grace, err := time.ParseDuration(args[0])
	s.change(func(p *v1.Pod) {
		p.DeletionTimestamp = &metav1.Time{Time: s.now.Add(grace)}
		p.DeletionGracePeriodSeconds = new(int64(grace / time.Second))
	})
	return err
}

func (s *stage) image(args []string) error {
	s.change(func(p *v1.Pod) {
		p.Generation++
		podspec.Find(p, args[0]).Image = args[1]
	})
	return nil
}

func (s *stage) add(args []string) error {
	s.change(func(p *v1.Pod) {
		p.Generation++
		addContainer(p, args[0])
	})
	return nil
}

func (s *stage) preempt([]string) error {
	s.pod.Terminate(plan.Ending{
		Reason:     "Preempting",
		Message:    "for a critical pod",
		Disruption: "it had to make room",
		At:         s.now,
	})
	return nil
}

func (s *stage) sandboxDies([]string) error {
	for _, x := range s.node.Sandboxes {
		s.killSandbox(x.ID)
	}
	return nil
}

// runtimeRestarts lets a container that was created and not yet started appear, as after a crash in between,
// and the steps in flight fail.
func (s *stage) runtimeRestarts([]string) error {
	for _, step := range slices.Clone(s.flying) {
		if step.Verb == plan.Start {
			s.obey(step)
			c := s.running(step.Name)
			c.State, c.Started = plan.Created, time.Time{}
		}
		s.end(step, errors.New("connection refused"))
	}
	return nil
}

// nodeReboots makes the runtime forget everything, and the agent too.
func (s *stage) nodeReboots([]string) error {
	s.node = plan.Observed{}
	s.restartAgent()
	return nil
}

// describe is a step as scripts have it.
func describe(s plan.Step) string {
	out := s.Key().String()
	switch s.Verb {
	case plan.CreateSandbox, plan.Start:
		if s.Attempt > 0 {
			out += fmt.Sprintf(" #%d", s.Attempt)
		}

	case plan.Pull:
		if s.Image != s.Name {
			out += " " + s.Image
		}

	case plan.Stop:
		out += fmt.Sprintf(" (%s, %s)", s.Why, s.Grace)
	}

	return out
}

// summary is a status in a line.
func summary(s *v1.PodStatus) string {
	out := string(s.Phase)
	if s.Reason != "" {
		out += " " + s.Reason
	}

	for _, c := range s.Conditions {
		if c.Type == v1.PodReady && c.Status == v1.ConditionTrue {
			out += ", ready"
		}
	}

	all := slices.Concat(s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses)
	for _, c := range all {
		out += " | " + c.Name
		if c.RestartCount > 0 {
			out += fmt.Sprintf("#%d", c.RestartCount)
		}

		switch {
		case c.State.Running != nil && !c.Ready &&
			slices.ContainsFunc(s.ContainerStatuses, func(x v1.ContainerStatus) bool {
				return x.Name == c.Name
			}):
			out += " running, not ready"

		case c.State.Running != nil:
			out += " running"
		case c.State.Terminated != nil:
			out += fmt.Sprintf(" ended %d %s", c.State.Terminated.ExitCode, c.State.Terminated.Reason)
		case c.State.Waiting != nil:
			out += " " + c.State.Waiting.Reason
		}
	}

	return out
}
