package runtime_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// Lists begin with the instance that counts, by plan's rule: the highest attempt.
func TestListsAreSelectedAndBeginWithTheNewest(t *testing.T) {
	s, c := connect(t)
	old := sandbox(t, c, "a", 0)
	fresh := sandbox(t, c, "a", 1)
	if err := c.StopSandbox(t.Context(), old); err != nil {
		t.Fatal(err)
	}

	first := container(t, c, "a", fresh, 0)
	s.Exit("c", 0)
	second := container(t, c, "a", fresh, 1)
	container(t, c, "b", sandbox(t, c, "b", 0), 0)

	ofPod := runtime.Selection{UID: "a"}
	sandboxes, err := c.Sandboxes(t.Context(), ofPod)
	if err != nil || len(sandboxes) != 2 || sandboxes[0].ID != fresh || sandboxes[1].Ready {
		t.Errorf("sandboxes %+v, %v", sandboxes, err)
	}

	containers, err := c.Containers(t.Context(), runtime.Selection{UID: "a", Container: "c"})
	if err != nil || len(containers) != 2 || containers[0].ID != second || containers[1].ID != first {
		t.Errorf("containers %+v, %v", containers, err)
	}

	want := runtime.Pod{UID: "a", Namespace: "n", Name: "p"}
	if got := containers[1]; got.State != plan.Exited || got.Name != "c" || got.Pod != want {
		t.Errorf("container %+v", got)
	}

	ofPod.Running = true
	if sandboxes, err = c.Sandboxes(t.Context(), ofPod); err != nil || len(sandboxes) != 1 {
		t.Errorf("ready sandboxes %+v, %v", sandboxes, err)
	}
	if containers, err = c.Containers(t.Context(), ofPod); err != nil || len(containers) != 1 {
		t.Errorf("running containers %+v, %v", containers, err)
	}

	if containers, err = c.Containers(t.Context(), runtime.Selection{
		UID:       "a",
		Container: "d",
	}); len(containers) > 0 {
		t.Errorf("containers of another name %+v, %v", containers, err)
	}

	if all, err := c.Containers(t.Context(), runtime.Selection{}); err != nil || len(all) != 3 {
		t.Errorf("all containers %+v, %v", all, err)
	}
}

func TestStatusSaysWhereTheLogIs(t *testing.T) {
	_, c := connect(t)
	id := container(t, c, "a", sandbox(t, c, "a", 0), 0)
	got, err := c.ContainerStatus(t.Context(), id)
	if want := (runtime.Status{State: plan.Running, LogPath: "/logs/a/c.log"}); err != nil || got != want {
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
