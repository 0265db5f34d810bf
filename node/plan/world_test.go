package plan_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/status"
)

var t0 = time.Unix(1_800_000_000, 0)

// podOf is a pod with containers: "a", "init:i" or "sidecar:s".
func podOf(policy v1.RestartPolicy, containers ...string) *v1.Pod {
	p := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			UID:        "u",
			Name:       "p",
			Namespace:  "n",
			Generation: 1,
		},
		Spec: v1.PodSpec{RestartPolicy: policy},
	}

	for _, word := range containers {
		addContainer(p, word)
	}

	return p
}

func addContainer(p *v1.Pod, word string) {
	kind, name, found := strings.Cut(word, ":")
	if !found {
		kind, name = "", word
	}

	c := v1.Container{Name: name, Image: name}
	switch kind {
	case "init":
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	case "sidecar":
		c.RestartPolicy = new(v1.ContainerRestartPolicyAlways)
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	case "ephemeral":
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, v1.EphemeralContainer{
			EphemeralContainerCommon: v1.EphemeralContainerCommon(c),
		})

	default:
		p.Spec.Containers = append(p.Spec.Containers, c)
	}
}

// world is a pod in the plan, and all around it: the API that wants it, and the node that obeys the steps.
type world struct {
	pod    *plan.Pod
	api    *v1.Pod // what the API has, or had; never nil
	gone   bool    // the API does not have it any more
	node   plan.Observed
	health map[string]plan.Health
	now    time.Time

	// ended is what the agent has decided about the pod, which is on disk; nil: nothing.
	ended *plan.Ending

	// grant is that of the resources in the specification, which is on disk; nil: they were never changed.
	grant *plan.Grant

	// sizes are what instances have, by ID, and group is the grant that the pod's group has.
	sizes map[string]podspec.Amounts
	group time.Time

	ids      int
	attempts map[string]uint32 // those of the next instances, by the name of the container
	flying   []plan.Step       // in flight, in the order in which they began
	obeyed   map[plan.Key]bool // steps in flight that the node has carried out
	stopped  map[string]bool   // sandboxes whose stop was carried through in this life of the agent
	tornDown bool
	forgot   bool
}

func newWorld(pod *v1.Pod) *world {
	w := &world{
		api:      pod,
		now:      t0,
		health:   map[string]plan.Health{},
		attempts: map[string]uint32{},
		sizes:    map[string]podspec.Amounts{},
	}
	w.restartAgent()
	return w
}

// restartAgent loses all that the agent knows beside the API and the node. Steps in flight end unseen.
func (w *world) restartAgent() {
	w.pod = plan.New(w.api.UID, 0)
	if w.ended != nil {
		w.pod.Terminate(*w.ended)
	}

	if w.grant != nil {
		recalled := *w.grant
		w.grant = &recalled
	}

	w.flying = nil
	w.obeyed = map[plan.Key]bool{}
	w.stopped = map[string]bool{}
	w.node.Mounted = false
}

// terminate has the agent decide that the pod must end.
func (w *world) terminate(e plan.Ending) {
	if w.pod.Terminate(e) {
		w.ended = &e
	}
}

// change gives the API another version of the pod, as the status of a pod is shared with earlier views.
func (w *world) change(mod func(*v1.Pod)) {
	w.api = w.api.DeepCopy()
	mod(w.api)
}

// look is one look of a worker, which begins the steps that were decided. What happens during the look, after
// the node was observed, does not show in it.
func (w *world) look(during func()) plan.Decision {
	w.pod.Look()
	seen := w.node
	seen.Sandboxes = slices.Clone(seen.Sandboxes)
	seen.Containers = slices.Clone(seen.Containers)
	if during != nil {
		during()
	}

	if w.gone {
		w.pod.Gone()
	} else {
		w.pod.Want(w.api)
		w.pod.Given(w.grant, nil)
	}

	w.pod.See(seen)
	d := w.pod.Decide(w.health, w.now)
	for _, s := range d.Steps {
		w.pod.Begin(s)
		w.flying = append(w.flying, s)
	}

	return d
}

// report brings the API's status up to date.
func (w *world) report(d plan.Decision) {
	if w.gone {
		return
	}
	s := status.Compute(&d.View, status.Node{IPs: []string{"192.0.2.1"}, Runtime: "rt"})
	w.change(func(p *v1.Pod) { p.Status = s })
}

// end ends a step in flight. Unless it fails, the node has obeyed by then.
func (w *world) end(s plan.Step, err error) {
	if err == nil {
		w.obey(s)
	}

	delete(w.obeyed, s.Key())
	w.flying = slices.DeleteFunc(w.flying, func(x plan.Step) bool { return x.Key() == s.Key() })
	w.pod.End(s, err, w.now)
	if err == nil && s.Verb == plan.StopSandbox {
		w.stopped[s.ID] = true
	}
}

// obey does what a step in flight asks for, once.
func (w *world) obey(s plan.Step) {
	if w.obeyed[s.Key()] {
		return
	}

	w.obeyed[s.Key()] = true
	switch s.Verb {
	case plan.Prepare:
		w.node.Mounted = true
	case plan.CreateSandbox:
		w.ids++
		w.node.Sandboxes = append(w.node.Sandboxes, plan.Sandbox{
			ID:      fmt.Sprint("sandbox", w.ids),
			Attempt: s.Attempt,
			Ready:   true,
			Created: w.now,
			IPs:     []string{"10.0.0.2"},
		})

	case plan.Start:
		w.start(s)
	case plan.Resize:
		w.resize(s.Sizes)
		w.group = s.Grant.At
	case plan.Stop:
		w.exit(s.ID, 143)
	case plan.StopSandbox:
		w.killSandbox(s.ID)
	case plan.RemoveContainer:
		w.removeContainers(func(c plan.Container) bool { return c.ID == s.ID })
	case plan.RemoveSandbox:
		removed := func(x plan.Sandbox) bool { return x.ID == s.ID }
		w.node.Sandboxes = slices.DeleteFunc(w.node.Sandboxes, removed)
		w.removeContainers(func(c plan.Container) bool { return c.SandboxID == s.ID })

	case plan.Teardown:
		w.tornDown, w.node.Mounted = true, false
	case plan.Finalize:
		w.gone = true
	case plan.Forget:
		w.forgot = true
	}
}

func (w *world) removeContainers(gone func(plan.Container) bool) {
	w.node.Containers = slices.DeleteFunc(w.node.Containers, gone)
}

// start runs an instance of what the spec says now. It is healthy unless it has probes, which scripts play.
func (w *world) start(s plan.Step) {
	if !slices.ContainsFunc(w.node.Sandboxes, func(x plan.Sandbox) bool { return x.ID == s.ID && x.Ready }) {
		return
	}

	spec := podspec.Find(w.api, s.Name)
	if spec == nil {
		return
	}

	w.ids++
	w.attempts[s.Name] = s.Attempt + 1
	id := fmt.Sprintf("%s.%d", s.Name, w.ids)
	w.node.Containers = append(w.node.Containers, plan.Container{
		ID:        id,
		Name:      s.Name,
		SandboxID: s.ID,
		Attempt:   s.Attempt,
		State:     plan.Running,
		Created:   w.now,
		Started:   w.now,
		Hash:      plan.Hash(spec),
		ImageID:   spec.Image,

		CreatedWith: new(podspec.AmountsOf(w.api, spec)),
	})

	w.sizes[id] = podspec.AmountsOf(w.api, spec)

	w.health[id] = plan.Health{Started: spec.StartupProbe == nil, Ready: spec.ReadinessProbe == nil}
}

// exit ends an instance, if it runs.
func (w *world) exit(id string, code int32) {
	for i := range w.node.Containers {
		if c := &w.node.Containers[i]; c.ID == id && c.State == plan.Running {
			c.State = plan.Exited
			c.ExitCode = code
			c.Finished = w.now
		}
	}
}

// killSandbox ends a sandbox with all that runs in it.
func (w *world) killSandbox(id string) {
	for i := range w.node.Sandboxes {
		if w.node.Sandboxes[i].ID == id {
			w.node.Sandboxes[i].Ready = false
		}
	}
	for _, c := range w.node.Containers {
		if c.SandboxID == id {
			w.exit(c.ID, 137)
		}
	}
}

// running is the instance of a container that runs, nil if none does.
func (w *world) running(name string) *plan.Container {
	for i := range w.node.Containers {
		if c := &w.node.Containers[i]; c.Name == name && c.State == plan.Running {
			return c
		}
	}
	return nil
}

func (w *world) ready() bool {
	return slices.ContainsFunc(w.node.Sandboxes, func(s plan.Sandbox) bool { return s.Ready })
}

// check returns what must never be decided, whatever has happened. before are the steps that were in flight.
func (w *world) check(d plan.Decision, before []plan.Step) error {
	seen := map[plan.Key]bool{}
	making := false
	for _, s := range before {
		seen[s.Key()] = true
		making = making || s.Verb == plan.Prepare || s.Verb == plan.CreateSandbox || s.Verb == plan.Start
	}

	runs := func(c plan.Container) bool { return c.State == plan.Running }
	anyRuns := slices.ContainsFunc(w.node.Containers, runs)

	for i, s := range d.Steps {
		if seen[s.Key()] {
			return fmt.Errorf("step %s is done twice at once", s.Key())
		}

		seen[s.Key()] = true
		if i > 0 && d.Steps[i-1].Verb > s.Verb {
			return fmt.Errorf("steps %v are not in order", d.Steps)
		}

		switch {
		case s.Why == plan.Resized && !w.mustRestart(s):
			return fmt.Errorf("%s is restarted to be resized", s.ID)
		case s.Verb == plan.Start && w.running(s.Name) != nil:
			return fmt.Errorf("a second instance of %s", s.Name)
		case s.Verb == plan.Start && s.Attempt < w.attempts[s.Name]:
			return fmt.Errorf("attempt %d of %s is made twice", s.Attempt, s.Name)
		case s.Verb == plan.Start && !w.ready():
			return fmt.Errorf("%s is started without a sandbox", s.Name)
		case s.Verb == plan.CreateSandbox && w.ready():
			return errors.New("a second sandbox")
		case (s.Verb == plan.Start || s.Verb == plan.CreateSandbox || s.Verb == plan.Pull) && d.View.Ending:
			return fmt.Errorf("%s of a pod that ends", s.Key())
		case (s.Verb == plan.StopSandbox || s.Verb == plan.Teardown) && d.View.Ending && making:
			return fmt.Errorf("%s while something is being made", s.Key())
		case s.Verb == plan.Teardown && (w.ready() || anyRuns):
			return errors.New("volumes are torn down under a running pod")
		case s.Verb == plan.RemoveSandbox && !w.stopped[s.ID]:
			return errors.New("a sandbox is removed before its stop was carried through")
		case s.Verb == plan.Finalize && (w.ready() || anyRuns || !w.tornDown):
			return errors.New("the object is deleted before the pod is down")
		}
	}

	return nil
}
