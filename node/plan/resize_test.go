package plan_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podspec"
)

// resize changes the resources of instances that run.
func (w *world) resize(sizes []plan.Size) {
	for _, s := range sizes {
		w.sizes[s.ID] = s.To
	}
}

// give gives the pod other resources.
func (w *world) give(mod func(*v1.Pod)) {
	w.change(func(p *v1.Pod) {
		p.Generation++
		mod(p)
	})
	w.grant = &plan.Grant{
		Generation: w.api.Generation,
		At:         w.now,
		Announced:  true,
	}
}

// inForce returns what does not have the resources that the pod has been given, of what runs.
func (w *world) inForce() error {
	if w.grant == nil {
		return nil
	}
	if !w.group.Equal(w.grant.At) {
		return errors.New("the pod's group is not resized")
	}

	for c := range podspec.Regular(w.api) {
		want := podspec.AmountsOf(w.api, c)
		if x := w.running(c.Name); x != nil && w.sizes[x.ID] != want {
			return fmt.Errorf("%s has %v, and is given %v", x.ID, w.sizes[x.ID], want)
		}
	}

	return nil
}

// settle looks and lets every step succeed until nothing is to be done, and returns the verbs.
func (w *world) settle() (verbs []string, last plan.Decision) {
	for range 20 {
		last = w.look(nil)
		for _, s := range last.Steps {
			if s.Verb != plan.Prepare {
				verbs = append(verbs, s.Verb.String()+" "+s.Name)
			}
		}

		if len(w.flying) == 0 {
			return verbs, last
		}
		for _, s := range slices.Clone(w.flying) {
			w.end(s, nil)
		}
		w.report(last)
		w.now = w.now.Add(time.Second)
	}

	return verbs, last
}

// request sets what a container requests.
func request(name v1.ResourceName, container, amount string) func(*v1.Pod) {
	return func(p *v1.Pod) {
		podspec.Find(p, container).Resources.Requests = v1.ResourceList{name: resource.MustParse(amount)}
	}
}

// restarts makes a resource of a container one that is not changed in place.
func restarts(p *v1.Pod, container string, name v1.ResourceName) {
	c := podspec.Find(p, container)
	c.ResizePolicy = []v1.ContainerResizePolicy{{ResourceName: name, RestartPolicy: v1.RestartContainer}}
}

func TestOnlyWhatDiffersIsResized(t *testing.T) {
	w := newWorld(podOf(v1.RestartPolicyAlways, "init:i", "sidecar:s", "a", "b"))
	restarts(w.api, "a", v1.ResourceMemory)
	for range 3 {
		w.settle()
		if x := w.running("i"); x != nil {
			w.exit(x.ID, 0)
		}
	}

	for _, c := range []struct {
		name string
		give func(*v1.Pod)
		want []string
	}{
		{"a container", request("cpu", "b", "1"), []string{"resize "}},
		{"a sidecar", request("cpu", "s", "1"), []string{"resize "}},
		{"an init container that has ended", request("cpu", "i", "1"), []string{"resize "}},
		{"in place, by its policy", request("cpu", "a", "1"), []string{"resize "}},
		{"not in place", request("memory", "a", "1Mi"), []string{"stop a", "pull a", "resize ", "start a"}},
		{"nothing", func(*v1.Pod) {}, []string{"resize "}},
	} {
		w.give(c.give)
		got, last := w.settle()
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
		if err := w.inForce(); err != nil || last.View.Resizing != nil {
			t.Errorf("%s: %v, %+v", c.name, err, last.View.Resizing)
		}
	}
}

func TestAContainerThatHadEndedIsNotRestartedByAResize(t *testing.T) {
	w := newWorld(podOf(v1.RestartPolicyOnFailure, "a", "b"))
	restarts(w.api, "a", v1.ResourceCPU)
	w.settle()
	w.exit(w.running("a").ID, 0)
	w.settle()

	w.now = w.now.Add(time.Minute)
	w.give(request("cpu", "a", "1"))
	if got, _ := w.settle(); slices.Contains(got, "start a") {
		t.Errorf("%q", got)
	}
}

func TestAContainerThatIsStoppedToBeResizedIsStartedWhateverItsCode(t *testing.T) {
	w := newWorld(podOf(v1.RestartPolicyOnFailure, "a"))
	restarts(w.api, "a", v1.ResourceCPU)
	w.settle()
	w.give(request("cpu", "a", "1"))
	w.now = w.now.Add(time.Second)

	// The agent is killed when the container has just ended, with success.
	w.look(nil)
	w.exit(w.running("a").ID, 0)
	w.restartAgent()
	w.settle()
	if w.running("a") == nil {
		t.Error("it does not run")
	}
	if err := w.inForce(); err != nil {
		t.Error(err)
	}
}

func TestAnotherAgentResizesAgainWhatMayNotBeInForce(t *testing.T) {
	w := newWorld(podOf(v1.RestartPolicyAlways, "a"))
	w.settle()
	w.give(request("cpu", "a", "1"))
	w.restartAgent()
	got, last := w.settle()
	if !slices.Equal(got, []string{"pull a", "resize "}) && !slices.Equal(got, []string{"resize "}) {
		t.Errorf("%q", got)
	}
	if err := w.inForce(); err != nil || last.View.Resizing != nil {
		t.Errorf("%v, %+v", err, last.View.Resizing)
	}
}

func TestAFailedResizeIsToldOnceAndHoldsUpNoStart(t *testing.T) {
	w := newWorld(podOf(v1.RestartPolicyAlways, "a", "b"))
	w.settle()
	w.give(request("cpu", "a", "1"))

	for attempt := range 3 {
		d := w.look(nil)
		w.report(d)
		if len(d.Steps) == 0 || d.Steps[len(d.Steps)-1].Verb != plan.Resize {
			w.now = w.now.Add(time.Minute)
			continue
		}

		s := d.Steps[len(d.Steps)-1]
		w.flying = nil
		told := w.pod.End(s, errors.New("no"), w.now)
		if told != (attempt == 0) {
			t.Errorf("attempt %d is told: %t", attempt, told)
		}

		w.now = w.now.Add(time.Minute)
	}

	w.exit(w.running("b").ID, 1)
	d := w.look(nil)
	for _, s := range slices.Clone(w.flying) {
		if s.Verb != plan.Resize {
			w.end(s, nil)
		}
	}

	d = w.look(nil)
	if _, failed := d.View.Failed(plan.Resize, ""); !failed || d.View.Resizing == nil {
		t.Errorf("%+v", d.View.Resizing)
	}
}

func TestWhatAnotherAgentMayHaveResizedIsResizedAnyway(t *testing.T) {
	w := newWorld(podOf(v1.RestartPolicyAlways, "a"))
	w.settle()

	// kubelet has resized it, which leaves no record here, and is replaced.
	w.now = w.now.Add(time.Second)
	w.sizes[w.running("a").ID] = podspec.Amounts{CPURequest: 2000}
	w.restartAgent()
	w.settle()

	w.give(func(*v1.Pod) {})
	w.settle()
	if err := w.inForce(); err != nil {
		t.Error(err)
	}
}
