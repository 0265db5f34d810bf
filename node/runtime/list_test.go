package runtime_test

import (
	"errors"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

func TestListsAreSelected(t *testing.T) {
	s, c := connect(t)
	old := sandbox(t, c, "a", 0)
	fresh := sandbox(t, c, "a", 1)
	if err := c.StopSandbox(t.Context(), old); err != nil {
		t.Fatal(err)
	}

	first := container(t, c, "a", fresh, 0)
	s.Exit("c", 0)
	second := container(t, c, "a", fresh, 1)
	other := container(t, c, "b", sandbox(t, c, "b", 0), 0)

	for name, x := range map[string]struct {
		which      runtime.Selection
		sandboxes  int
		containers []string
	}{
		"all":          {runtime.Selection{}, 3, []string{first, second, other}},
		"of a pod":     {runtime.Selection{UID: "a"}, 2, []string{first, second}},
		"running":      {runtime.Selection{UID: "a", Running: true}, 1, []string{second}},
		"of a name":    {runtime.Selection{Container: "c"}, 0, []string{first, second, other}},
		"of no name":   {runtime.Selection{Container: "d"}, 0, nil},
		"of no pod":    {runtime.Selection{UID: "c"}, 0, nil},
		"running ones": {runtime.Selection{Running: true}, 2, []string{second, other}},
	} {
		containers, err := c.Containers(t.Context(), x.which)
		var got []string
		for _, one := range containers {
			got = append(got, one.ID)
		}

		slices.Sort(got)
		slices.Sort(x.containers)
		if diff := cmp.Diff(x.containers, got); diff != "" || err != nil {
			t.Errorf("%s: containers: %v, %s", name, err, diff)
		}

		sandboxes, err := c.Sandboxes(t.Context(), x.which)
		if len(sandboxes) != x.sandboxes || err != nil {
			t.Errorf("%s: sandboxes %+v, %v; want %d", name, sandboxes, err, x.sandboxes)
		}
	}
}

func TestListedContainersAreThoseOfPods(t *testing.T) {
	_, c := connect(t)
	id := sandbox(t, c, "a", 0)
	container(t, c, "a", id, 4)
	got, err := c.Containers(t.Context(), runtime.Selection{})
	if err != nil || len(got) != 1 {
		t.Fatalf("%+v, %v", got, err)
	}

	want := runtime.Container{
		ID:        got[0].ID,
		SandboxID: id,
		Pod:       runtime.Pod{UID: "a", Namespace: "n", Name: "p"},
		Name:      "c",
		Attempt:   4,
		State:     plan.Running,
		Created:   got[0].Created,
	}
	if diff := cmp.Diff(want, got[0]); diff != "" || got[0].Created.IsZero() {
		t.Error(diff)
	}
}

func TestNewestIsTheHighestAttemptThenTheLastMade(t *testing.T) {
	early, late := time.Unix(1, 0), time.Unix(2, 0)
	for want, all := range map[string][]runtime.Container{
		"attempt": {{ID: "z", Attempt: 1, Created: late}, {ID: "attempt", Attempt: 2, Created: early}},
		"time":    {{ID: "time", Created: late}, {ID: "z", Created: early}},
		"zid":     {{ID: "a", Created: late}, {ID: "zid", Created: late}, {ID: "b", Created: late}},
	} {
		if got := runtime.NewestContainer(all); got == nil || got.ID != want {
			t.Errorf("by %s: %+v", want, got)
		}

		var sandboxes []runtime.Sandbox
		for _, c := range all {
			sandboxes = append(sandboxes, runtime.Sandbox{ID: c.ID, Attempt: c.Attempt, Created: c.Created})
		}

		if got := runtime.NewestSandbox(sandboxes); got == nil || got.ID != want {
			t.Errorf("sandbox by %s: %+v", want, got)
		}
	}

	if c, s := runtime.NewestContainer(nil), runtime.NewestSandbox(nil); c != nil || s != nil {
		t.Errorf("of none: %v, %v", c, s)
	}
}

func TestStatusSaysWhereTheLogIs(t *testing.T) {
	_, c := connect(t)
	id := container(t, c, "a", sandbox(t, c, "a", 0), 0)
	got, err := c.ContainerStatus(t.Context(), id)
	want := runtime.Status{State: plan.Running, LogPath: "/logs/a/c.log"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	if _, err := c.ContainerStatus(t.Context(), "nope"); !errors.Is(err, runtime.ErrNotFound) {
		t.Errorf("of one that is gone: %v", err)
	}
}

func TestNamesakesHaveTheAnnotationsOfTheirSandboxes(t *testing.T) {
	_, c := connect(t)
	sandbox(t, c, "a", 0)
	sandbox(t, c, "b", 0)
	got, err := c.Namesakes(t.Context(), "n", "p")
	want := runtime.Annotations{"a": {"of": "a"}, "b": {"of": "b"}}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, %s", err, diff)
	}
	if got, err := c.Namesakes(t.Context(), "n", "other"); len(got) > 0 || err != nil {
		t.Errorf("another name: %v, %v", got, err)
	}
}
