package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// world is a runtime and an agent's memory that obey every step, at random moments and in random order, with
// crashes of containers, sandboxes and the agent in between.
type world struct {
	t   *testing.T
	rng *rand.Rand
	in  Input
	ids int
}

func (w *world) apply(s Step) {
	o := &w.in.Observed
	m := &w.in.Memory
	switch s.Verb {
	case Prepare:
		m.Mounted, m.Prepared = true, true
	case Pull:
		m.Images[s.Name] = s.Name
	case CreateSandbox:
		w.ids++
		o.Sandboxes = append(o.Sandboxes, Sandbox{
			ID:      fmt.Sprint("s", w.ids),
			Attempt: s.Attempt,
			Ready:   true,
			Created: w.in.Now,
		})

	case StopSandbox:
		m.Stopped[s.ID] = true
		for i := range o.Sandboxes {
			if o.Sandboxes[i].ID == s.ID {
				o.Sandboxes[i].Ready = false
			}
		}

	case RemoveSandbox:
		o.Sandboxes = slices.DeleteFunc(o.Sandboxes, func(x Sandbox) bool { return x.ID == s.ID })
		o.Containers = slices.DeleteFunc(o.Containers, func(x Container) bool { return x.SandboxID == s.ID })
	case Start:
		w.ids++
		delete(m.Images, s.Name)
		id := fmt.Sprint("c", w.ids)
		o.Containers = append(o.Containers, Container{
			ID:        id,
			Name:      s.Name,
			SandboxID: s.ID,
			Attempt:   s.Attempt,
			State:     Running,
			Created:   w.in.Now,
			Started:   w.in.Now,
			Hash:      Hash(&v1.Container{Name: s.Name, Image: s.Name}),
		})

		m.Health[id] = Health{Started: true, Ready: true}
		if s.Restart {
			m.Backoffs[s.Name] = m.Backoffs[s.Name].Next(w.in.Now, MaxBackoff)
		}

	case Stop:
		w.exit(s.ID, 143)
	case RemoveContainer:
		o.Containers = slices.DeleteFunc(o.Containers, func(x Container) bool { return x.ID == s.ID })
	case Teardown:
		m.TornDown = true
	case Finalize:
		m.Gone = true
	}
}

func (w *world) exit(id string, code int32) {
	for i := range w.in.Observed.Containers {
		if c := &w.in.Observed.Containers[i]; c.ID == id && c.State == Running {
			c.State, c.ExitCode, c.Finished = Exited, code, w.in.Now
		}
	}
}

// check holds at every moment, whatever happens.
func (w *world) check(d Decision) {
	running := map[string]int{}
	for _, c := range w.in.Observed.Containers {
		if c.State == Running {
			running[c.Name]++
		}
	}

	ready := 0
	for _, s := range w.in.Observed.Sandboxes {
		if s.Ready {
			ready++
		}
	}

	seen := map[string]bool{}
	for _, s := range d.Steps {
		if seen[s.Key()] {
			w.t.Fatalf("step %s twice in %v", s.Key(), d.Steps)
		}

		seen[s.Key()] = true
		switch {
		case s.Verb == Start && running[s.Name] > 0:
			w.t.Fatalf("a second instance of %s", s.Name)
		case s.Verb == Start && ready == 0:
			w.t.Fatalf("%s started without a sandbox", s.Name)
		case s.Verb == CreateSandbox && ready > 0:
			w.t.Fatal("a second sandbox")
		case (s.Verb == Start || s.Verb == CreateSandbox) && d.Ending:
			w.t.Fatalf("%s of a pod that ends", s.Key())
		case s.Verb == Teardown && (ready > 0 || len(running) > 0):
			w.t.Fatal("volumes torn down under a running pod")
		case s.Verb == RemoveSandbox && !w.in.Memory.Stopped[s.ID]:
			w.t.Fatal("a sandbox removed before its stop was carried through")
		case s.Verb == Finalize && (ready > 0 || len(running) > 0 || !w.in.Memory.TornDown):
			w.t.Fatal("the object deleted before the pod was down")
		}
	}
}

func TestEveryHistoryConverges(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 7))
		policy := []v1.RestartPolicy{"Always", "OnFailure", "Never"}[rng.IntN(3)]
		pod := podOf(policy, "init:i", "side:s", "init:j", "a", "b")
		w := &world{t: t, rng: rng, in: input(pod)}
		w.in.Memory.Prepared = false
		clear(w.in.Memory.Images)
		for round := range 200 {
			w.in.Now = w.in.Now.Add(time.Duration(rng.IntN(2000)) * time.Millisecond)
			d := Decide(w.in)
			w.check(d)
			for _, i := range rng.Perm(len(d.Steps)) {
				if rng.IntN(3) > 0 || round > 60 {
					w.apply(d.Steps[i])
				}
			}

			w.disturb(round)
		}

		w.settle(seed)
	}
}

// disturb lets containers end, sandboxes vanish and the agent restart.
func (w *world) disturb(round int) {
	for _, c := range w.in.Observed.Containers {
		if c.State != Running {
			continue
		}

		init := strings.Contains("ij", c.Name)
		if init && w.rng.IntN(3) == 0 {
			w.exit(c.ID, int32(w.rng.IntN(8)/7))
		} else if !init && round < 60 && w.rng.IntN(20) == 0 {
			w.exit(c.ID, int32(w.rng.IntN(2)))
		}
	}

	if round < 60 && w.rng.IntN(40) == 0 {
		for i := range w.in.Observed.Sandboxes {
			w.in.Observed.Sandboxes[i].Ready = false
		}

		for _, c := range w.in.Observed.Containers {
			w.exit(c.ID, 137)
		}
	}

	// the agent is killed: all but the API and the runtime is lost
	if round < 60 && w.rng.IntN(40) == 0 {
		fresh := input(w.in.Pod).Memory
		fresh.Mounted, fresh.Prepared = false, false
		clear(fresh.Images)
		for _, c := range w.in.Observed.Containers {
			fresh.Health[c.ID] = Health{Started: true, Ready: true}
		}

		fresh.Reported = w.in.Memory.Reported
		w.in.Memory = fresh
	}

	if round == 120 && w.in.Pod.DeletionTimestamp == nil {
		p := w.in.Pod.DeepCopy()
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: w.in.Now}, new(int64(0))
		w.in.Pod = p
	}

	running := slices.ContainsFunc(
		w.in.Observed.Containers,
		func(c Container) bool { return c.State == Running },
	)
	if !running && Decide(w.in).Ending {
		w.in.Memory.Reported = true
	}
}

func (w *world) settle(seed uint64) {
	w.t.Helper()
	for range 50 {
		for _, s := range Decide(w.in).Steps {
			if s.Verb == Forget {
				return
			}
			w.apply(s)
		}
		w.in.Memory.Reported = true
	}
	w.t.Fatalf("seed %d: never gone: %v", seed, Decide(w.in).Steps)
}
