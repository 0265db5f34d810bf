package plan

import (
	"errors"
	"fmt"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/trivet-node/trivet/node/reason"
)

var start = time.Unix(1_800_000_000, 0)

func simplePod() *v1.Pod {
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Generation: 1, Labels: map[string]string{"a": "1"}},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "old"}}},
	}
}

func TestWhatStepsInFlightHaveBroughtAboutIsHidden(t *testing.T) {
	old := Container{
		ID:      "0",
		Name:    "c",
		State:   Exited,
		Started: start,
	}

	starting := Step{Verb: Start, Name: "c"}
	removing := Step{Verb: RemoveContainer, ID: "1"}
	for _, c := range []struct {
		name     string
		instance Container
		inFlight *Step
		want     State
	}{
		{
			"running, its postStart hook is not over",
			Container{State: Running, Started: start},
			&starting,
			Created,
		},
		{"running", Container{State: Running, Started: start}, nil, Running},
		{"never started and being removed", Container{State: Exited}, &removing, Created},
		{"could not start", Container{State: Exited}, nil, Exited},
		{"ended and being removed", Container{State: Exited, Started: start}, &removing, Exited},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New("u", 0)
			p.Want(simplePod())
			if c.inFlight != nil {
				p.Begin(*c.inFlight)
			}

			c.instance.ID = "1"
			c.instance.Name = "c"
			c.instance.Attempt = 1
			seen := p.See(Observed{Containers: []Container{old, c.instance}}).Observed.Containers
			if seen[0].State != Exited || seen[1].State != c.want {
				t.Errorf("states %v and %v, want %v for the second", seen[0].State, seen[1].State, c.want)
			}
		})
	}
}

func TestOfTwoSandboxesTheNewestCounts(t *testing.T) {
	for _, c := range []struct {
		name  string
		all   []Sandbox
		ready string
	}{
		{
			name:  "two are ready",
			all:   []Sandbox{{ID: "new", Attempt: 1, Ready: true}, {ID: "old", Ready: true}},
			ready: "new",
		},
		{
			name: "the older one is ready",
			all:  []Sandbox{{ID: "old", Ready: true}, {ID: "new", Attempt: 1}},
		},
		{
			name:  "the newest is ready",
			all:   []Sandbox{{ID: "old"}, {ID: "new", Attempt: 1, Ready: true}},
			ready: "new",
		},
		{
			name:  "the same attempt, as after a reboot",
			all:   []Sandbox{{ID: "b", Created: start}, {ID: "a", Created: start.Add(1), Ready: true}},
			ready: "a",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := viewOf(simplePod(), Observed{Sandboxes: c.all}, nil)
			id := ""
			if s := v.Ready(); s != nil {
				id = s.ID
			}

			if id != c.ready {
				t.Errorf("%q is ready, want %q", id, c.ready)
			}
		})
	}
}

func TestInstancesComeNewestFirst(t *testing.T) {
	v := viewOf(simplePod(), Observed{Containers: []Container{
		{ID: "1", Name: "c", Attempt: 1},
		{ID: "3", Name: "c", Attempt: 2, Created: start.Add(time.Second)},
		{ID: "0", Name: "c"},
		{ID: "2", Name: "c", Attempt: 2, Created: start},
	}}, nil)

	got := ""
	for _, c := range v.Instances("c") {
		got += c.ID
	}

	if got != "3210" {
		t.Errorf("order %s, want 3210", got)
	}
}

// failed is a pod that has failed to start c, and crashed before.
func failed() *Pod {
	p := New("u", 0)
	p.Want(simplePod())
	p.End(Step{Verb: Prepare}, nil, start)
	p.End(Step{Verb: Start, Name: "c", Restart: true}, reason.New("Bad", errors.New("it fails")), start)
	return p
}

func TestWhatANewSpecForgets(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*v1.Pod)

		// What is kept: failures, the back-off of restarts, and that the volumes are up to date.
		failures bool
		restarts bool
		fresh    bool
	}{
		{"nothing", func(*v1.Pod) {}, true, true, true},
		{"the status", func(p *v1.Pod) { p.Status.Phase = v1.PodRunning }, true, true, true},
		{"a label", func(p *v1.Pod) { p.Labels["a"] = "2" }, true, true, false},
		{"an annotation", func(p *v1.Pod) { p.Annotations = map[string]string{"b": "2"} }, true, true, false},
		{"another image", newImage, false, false, false},
		{"something else of the spec", func(p *v1.Pod) { p.Generation = 2 }, false, true, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := failed()
			pod := simplePod()
			c.change(pod)

			if changed := p.Want(pod); changed != (pod.Generation == 2) {
				t.Errorf("changed: %v", changed)
			}
			if got := len(p.steps.failures) > 0; got != c.failures {
				t.Errorf("failures are kept: %v", got)
			}
			if got := len(p.restarts) > 0; got != c.restarts {
				t.Errorf("the back-off is kept: %v", got)
			}
			if p.volumes.fresh != c.fresh {
				t.Errorf("volumes are up to date: %v", p.volumes.fresh)
			}
		})
	}
}

func newImage(p *v1.Pod) {
	p.Generation = 2
	p.Spec.Containers[0].Image = "new"
}

func TestVolumesThatChangeWhileTheyAreMountedAreMountedAgain(t *testing.T) {
	p := New("u", 0)
	p.Want(simplePod())
	p.Begin(Step{Verb: Prepare})
	p.ObjectChanged()
	p.End(Step{Verb: Prepare}, nil, start)
	if p.volumes.fresh {
		t.Error("the change is lost")
	}
}

func TestVolumesAreRenewedAtTheirTime(t *testing.T) {
	p := New("u", 0)
	p.Want(simplePod())
	p.End(Step{Verb: Prepare}, nil, start)
	p.RenewAt(start.Add(time.Minute))
	for _, c := range []struct {
		after    time.Duration
		prepares bool
	}{{time.Minute - 1, false}, {time.Minute, true}} {
		p.Look()
		p.See(Observed{})
		d := p.Decide(nil, start.Add(c.after))
		prepares := len(d.Steps) > 0 && d.Steps[0].Verb == Prepare
		if prepares != c.prepares || !c.prepares && !d.Requeue.Equal(start.Add(time.Minute)) {
			t.Errorf("after %s: steps %v, again at %v", c.after, d.Steps, d.Requeue)
		}
	}
}

func TestTheFirstReasonToEndStands(t *testing.T) {
	p := New("u", 0)
	if !p.Terminate(Ending{Reason: "Preempting"}) || p.Terminate(Ending{Reason: "Evicted"}) {
		t.Error("want the first one only")
	}
	if !p.Terminated() || p.ended.Reason != "Preempting" {
		t.Errorf("%+v", p.ended)
	}
}

func TestKeysReadLikeThis(t *testing.T) {
	for want, s := range map[string]Step{
		"prepare":        {Verb: Prepare},
		"start/c":        {Verb: Start, Name: "c", ID: "sandbox"},
		"pull/c":         {Verb: Pull, Name: "c", Image: "i"},
		"stop/1":         {Verb: Stop, Name: "c", ID: "1"},
		"remove/1":       {Verb: RemoveContainer, Name: "c", ID: "1"},
		"stop-sandbox/2": {Verb: StopSandbox, ID: "2"},
	} {
		if got := fmt.Sprint(s.Key()); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestEndOfAPodWaitsForContainersAndForNothingElse(t *testing.T) {
	for _, c := range []struct {
		inFlight Step
		want     bool
	}{
		{Step{Verb: Prepare}, true},
		{Step{Verb: CreateSandbox}, true},
		{Step{Verb: Start, Name: "c"}, false},
	} {
		p := New("u", 0)
		spec := simplePod()
		spec.Spec.ActiveDeadlineSeconds = new(int64(1))
		spec.Status.StartTime = &metav1.Time{Time: start}
		p.Want(spec)
		p.See(Observed{})
		p.Begin(c.inFlight)

		d := p.Decide(nil, start.Add(time.Minute))
		if got := d.View.Down(); got != c.want {
			t.Errorf("with %s in flight it is down: %t, want %t", c.inFlight.Verb, got, c.want)
		}
	}
}

func TestSoManyOldInstancesAreKept(t *testing.T) {
	for keep, want := range map[int]int{-1: 3, 0: 3, 1: 3, 2: 2, 4: 0, 100: 0} {
		p := New("u", 0)
		p.KeepOld(keep)
		p.Look()
		p.Want(simplePod())

		o := Observed{Mounted: true, Sandboxes: []Sandbox{{ID: "s", Ready: true}}}
		for i := range 5 {
			o.Containers = append(o.Containers, Container{
				ID:        fmt.Sprint(i),
				Name:      "c",
				SandboxID: "s",
				Attempt:   uint32(i),
				State:     Exited,
				Started:   start,
			})
		}

		p.See(o)
		removed := 0
		for _, s := range p.Decide(nil, start.Add(time.Second)).Steps {
			if s.Verb == RemoveContainer {
				removed++
			}
		}

		if removed != want {
			t.Errorf("%d old ones are kept: %d of 5 are removed, want %d", keep, removed, want)
		}
	}
}
