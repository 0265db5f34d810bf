package plan_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

var onlySeed = flag.Int("seed", -1, "the one history to play, with -v step by step")

// history is a life of a pod in which anything may happen. choose decides what does.
type history struct {
	*world
	choose func(n int) int // 0 to n-1
	trace  []string

	// view is that of the last decision.
	view plan.View
}

func newHistory(choose func(int) int) *history {
	policy := []v1.RestartPolicy{
		v1.RestartPolicyAlways,
		v1.RestartPolicyOnFailure,
		v1.RestartPolicyNever,
	}[choose(3)]

	pod := podOf(policy, "init:i", "sidecar:s", "init:j", "a", "b")
	for _, c := range []*v1.Container{&pod.Spec.InitContainers[1], &pod.Spec.Containers[0]} {
		c.ResizePolicy = []v1.ContainerResizePolicy{{
			ResourceName:  v1.ResourceCPU,
			RestartPolicy: v1.RestartContainer,
		}}
	}

	if choose(3) == 0 {
		pod.Spec.ActiveDeadlineSeconds = new(int64(60))
	}

	if choose(3) == 0 {
		restarter := [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers}[choose(2)]
		restarter[choose(len(restarter))].RestartPolicyRules = restartAllOn(1)
	}

	return &history{world: newWorld(pod), choose: choose}
}

func (h *history) say(format string, a ...any) {
	h.trace = append(h.trace, fmt.Sprintf("%6s ", h.now.Sub(t0))+fmt.Sprintf(format, a...))
}

// often reports whether something happens that does one in n times.
func (h *history) often(n int) bool { return h.choose(n) == 0 }

// step is one look, and what becomes of steps in flight. quiet lets all of them succeed.
func (h *history) step(quiet bool) (plan.Decision, error) {
	before := slices.Clone(h.flying)
	d := h.look(func() {
		for _, s := range before {
			if h.often(8) {
				h.end(s, nil)
			}
		}
	})

	h.view = d.View
	for _, k := range d.Cancel {
		h.say("cancel %s", k)
	}

	for _, s := range d.Steps {
		h.say("begin  %s", describe(s))
	}

	if err := h.check(d, before); err != nil {
		return d, err
	}

	if d.Resized != nil {
		h.say("resized")
		if err := h.inForce(); err != nil {
			return d, fmt.Errorf("told too early: %w", err)
		}
	}

	h.report(d)
	h.say("status %s", summary(&h.api.Status))

	for _, s := range slices.Clone(h.flying) {
		cancelled := slices.Contains(d.Cancel, s.Key())
		fate := 0
		if !quiet {
			fate = h.choose(6)
		}

		switch {
		case fate <= 1:
			h.end(s, nil)
		case cancelled:
			h.end(s, context.Canceled)
		case fate == 2:
			h.say("fail   %s", s.Key())
			h.resize(s.Sizes[:len(s.Sizes)/2])
			h.end(s, errors.New("fails"))

		case fate == 3:
			// What it does shows before it has ended.
			h.obey(s)
		}
	}

	return d, nil
}

// disturb lets containers end, sandboxes die, the spec change and the agent restart.
func (h *history) disturb() {
	for _, c := range slices.Clone(h.node.Containers) {
		initial := c.Name == "i" || c.Name == "j"
		if c.State == plan.Running && (initial && h.often(3) || h.often(20)) {
			code := int32(h.choose(2))
			h.say("exit   %s %d", c.ID, code)
			h.exit(c.ID, code)
		}
	}

	if h.often(40) {
		h.say("sandbox dies")
		for _, s := range h.node.Sandboxes {
			h.killSandbox(s.ID)
		}
	}

	if h.often(40) {
		h.say("agent restarts")
		h.restartAgent()
	}

	if h.often(80) {
		h.say("evicted")
		h.terminate(plan.Ending{
			Reason:     "Evicted",
			Disruption: "the node was low on something",
			Grace:      new(time.Second),
			At:         h.now,
		})
	}

	if h.often(40) {
		h.say("object changes")
		h.pod.ObjectChanged()
	}

	if h.often(15) {
		h.give(h.resources)
		h.say("resize %s", h.sized())
	}

	if h.often(60) {
		h.say("image changes")
		h.change(func(p *v1.Pod) {
			p.Generation++
			p.Spec.Containers[0].Image += "+"
		})
	}
}

// resources changes those of some container.
func (h *history) resources(p *v1.Pod) {
	all := slices.Collect(podspec.Regular(p))
	c := all[h.choose(len(all))]
	name := []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory}[h.choose(2)]
	amount := *resource.NewQuantity(int64(1+h.choose(3)), resource.DecimalSI)
	c.Resources.Requests = maps.Clone(c.Resources.Requests)
	if c.Resources.Requests == nil {
		c.Resources.Requests = v1.ResourceList{}
	}
	c.Resources.Requests[name] = amount
}

// sized is what the containers are given.
func (h *history) sized() string {
	var out []string
	for c := range podspec.Regular(h.api) {
		out = append(out, c.Name+" "+podspec.AmountsOf(h.api, c).String())
	}
	return strings.Join(out, ", ")
}

func (h *history) pass(d time.Duration) { h.now = h.now.Add(d) }

// deletePod deletes the pod in the API, with no grace.
func (h *history) deletePod() {
	h.say("delete")
	h.change(func(p *v1.Pod) {
		p.DeletionTimestamp = &metav1.Time{Time: h.now}
		p.DeletionGracePeriodSeconds = new(int64(0))
	})
}

// drain plays on until nothing is left of a deleted pod. The plan must wake up by itself.
func (h *history) drain() error {
	for range 200 {
		d, err := h.step(true)
		switch {
		case err != nil:
			return err
		case h.forgot:
			return nil
		case len(h.flying)+len(d.Steps)+len(d.Cancel) > 0:
		case d.Requeue.IsZero() && !h.gone:
			// The status was reported, or the API has deleted the object.
			h.pass(time.Second)
		default:
			h.now = d.Requeue
		}
	}

	return errors.New("it never goes")
}

// playSeed plays the history of a seed to its end.
func playSeed(seed uint64) (*history, error) {
	rng := rand.New(rand.NewPCG(seed, 7))
	h := newHistory(rng.IntN)
	for round := range 120 {
		h.pass(time.Duration(rng.IntN(2000)) * time.Millisecond)
		if _, err := h.step(round > 80); err != nil {
			return h, err
		}
		if round < 80 {
			h.disturb()
		}
	}

	if !h.view.Ending && h.view.Ready() != nil {
		if err := h.inForce(); err != nil {
			return h, err
		}
	}

	h.deletePod()
	return h, h.drain()
}

func TestEveryHistoryConverges(t *testing.T) {
	for seed := range uint64(600) {
		if *onlySeed >= 0 && seed != uint64(*onlySeed) {
			continue
		}

		h, err := playSeed(seed)
		if *onlySeed >= 0 {
			for _, line := range h.trace {
				t.Log(line)
			}
		}

		if err != nil {
			t.Fatalf("%v (go test ./node/plan -run TestEveryHistoryConverges -v -seed %d)", err, seed)
		}
	}
}

func TestASeedReplaysItsHistory(t *testing.T) {
	for seed := range uint64(20) {
		first, _ := playSeed(seed)
		second, _ := playSeed(seed)
		if diff := cmp.Diff(first.trace, second.trace); diff != "" {
			t.Fatalf("seed %d: -first +second:\n%s", seed, diff)
		}
	}
}

// FuzzHistories lets the fuzzer choose what happens.
func FuzzHistories(f *testing.F) {
	f.Add([]byte{})
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16})
	f.Fuzz(func(t *testing.T, choices []byte) {
		h := newHistory(func(n int) int {
			if len(choices) == 0 {
				return n - 1
			}

			c := int(choices[0]) % n
			choices = choices[1:]
			return c
		})

		for len(choices) > 0 {
			h.pass(time.Duration(h.choose(20)) * 100 * time.Millisecond)
			if _, err := h.step(false); err != nil {
				t.Fatal(err)
			}

			h.disturb()
		}

		h.deletePod()
		if err := h.drain(); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzDecideNeverPanics decides about states of a node that no history leads to.
func FuzzDecideNeverPanics(f *testing.F) {
	f.Add(uint8(1), uint8(2), uint8(3), true)
	f.Fuzz(func(t *testing.T, a, b, c uint8, gone bool) {
		w := newWorld(podOf(v1.RestartPolicyAlways, "init:i", "sidecar:s", "a"))
		w.gone = gone
		w.node.Sandboxes = []plan.Sandbox{{ID: "sandbox", Ready: a%2 == 0, Created: t0}}
		for i, x := range []uint8{a, b, c, a} {
			w.node.Containers = append(w.node.Containers, plan.Container{
				ID:        fmt.Sprint(i),
				Name:      string("isax"[i]),
				SandboxID: "sandbox",
				State:     plan.State(x % 4),
				ExitCode:  int32(b),
			})
		}

		for range 3 {
			before := slices.Clone(w.flying)
			if err := w.check(w.look(nil), before); err != nil {
				t.Fatal(err)
			}

			for _, s := range slices.Clone(w.flying) {
				w.end(s, nil)
			}
		}
	})
}
