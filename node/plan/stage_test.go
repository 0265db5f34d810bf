package plan_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/reason"
)

// happenings are what can happen to a pod, by the first word of a line.
var happenings = map[string]func(s *stage, args []string) error{
	"look":             (*stage).lookOnce,
	"run":              (*stage).run,
	"end":              (*stage).endSteps,
	"fail":             (*stage).failStep,
	"exit":             (*stage).exitContainer,
	"probe":            (*stage).probe,
	"wait":             (*stage).wait,
	"wake":             (*stage).wake,
	"delete":           (*stage).delete,
	"image":            (*stage).image,
	"add":              (*stage).add,
	"preempt":          (*stage).preempt,
	"evict":            (*stage).evict,
	"object-changes":   (*stage).objectChanges,
	"object-vanishes":  (*stage).objectVanishes,
	"sandbox-dies":     (*stage).sandboxDies,
	"runtime-restarts": (*stage).runtimeRestarts,
	"agent-restarts":   (*stage).agentRestarts,
	"node-reboots":     (*stage).nodeReboots,
}

// happen makes one line of a script happen.
func (s *stage) happen(words []string) error {
	if words[0] == "pod" {
		s.world = newWorld(declared(words[1:]))
		return configure(s.api, words[1:])
	}

	if s.world == nil {
		return errors.New("there is no pod yet")
	}

	do := happenings[words[0]]
	if do == nil {
		return errors.New("no such word")
	}

	return do(s, words[1:])
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

func (s *stage) objectChanges([]string) error {
	s.pod.ObjectChanged()
	return nil
}

func (s *stage) objectVanishes([]string) error {
	s.gone = true
	return nil
}

func (s *stage) agentRestarts([]string) error {
	s.restartAgent()
	return nil
}

func (s *stage) preempt([]string) error {
	s.terminate(plan.Ending{
		Reason:     "Preempting",
		Message:    "for a critical pod",
		Disruption: "it had to make room",
		At:         s.now,
	})
	return nil
}

func (s *stage) evict(args []string) error {
	grace, err := time.ParseDuration(args[0])
	s.terminate(plan.Ending{
		Reason:     "Evicted",
		Message:    "the node was low on something",
		Disruption: "the node was low on something",
		Grace:      &grace,
		At:         s.now,
	})
	return err
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
			s.attempts[c.Name] = c.Attempt
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

// mustRestart reports whether the resizePolicy of a container restarts it for CPU, here never for memory.
func (w *world) mustRestart(s plan.Step) bool {
	c := podspec.Find(w.api, s.Name)
	for _, x := range w.node.Containers {
		if x.ID == s.ID && x.CreatedWith != nil {
			want := podspec.AmountsOf(w.api, c)
			cpu := x.CreatedWith.CPURequest != want.CPURequest || x.CreatedWith.CPULimit != want.CPULimit
			return cpu && len(c.ResizePolicy) > 0
		}
	}
	return false
}
