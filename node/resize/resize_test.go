package resize

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/podcgroup"
	"github.com/trivet-node/trivet/node/podspec"
	"github.com/trivet-node/trivet/node/runtime"
)

const mebibyte = 1 << 20

// node is the control groups and the runtime of a node. The call that fails is named.
type node struct {
	calls  []string
	fails  string
	memory podcgroup.Memory
	used   int64
}

func (n *node) call(name string) error {
	n.calls = append(n.calls, name)
	if name == n.fails {
		return errors.New("it fails")
	}
	return nil
}

func (n *node) Widen(context.Context, *v1.Pod) error                   { return n.call("widen") }
func (n *node) Narrow(context.Context, *v1.Pod) error                  { return n.call("narrow") }
func (n *node) Memory(*v1.Pod) (podcgroup.Memory, error)               { return n.memory, nil }
func (n *node) ContainerMemory(context.Context, string) (int64, error) { return n.used, nil }

func (n *node) UpdateContainer(_ context.Context, id string, _ *runtime.Resources) error {
	return n.call(id)
}

func (n *node) UpdateSandbox(context.Context, string, *runtime.Resources, *runtime.Resources) error {
	return n.call("sandbox")
}

func pod() *v1.Pod {
	limits := v1.ResourceList{v1.ResourceMemory: resource.MustParse("64Mi")}
	return &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{
		{Name: "a", Resources: v1.ResourceRequirements{Limits: limits}},
		{Name: "b", Resources: v1.ResourceRequirements{Limits: limits}},
	}}}
}

// sizes are those of both containers, of which a shrinks.
func sizes() []plan.Size {
	to := podspec.Amounts{MemoryLimit: 64 * mebibyte}
	return []plan.Size{{Name: "a", ID: "a.1", Shrinks: true, To: to}, {Name: "b", ID: "b.1", To: to}}
}

func TestTheGroupIsWidenedFirstAndNarrowedLast(t *testing.T) {
	n := &node{memory: podcgroup.Memory{Limit: -1}}
	var took []error
	r := New(Config{
		Cgroups: n,
		Runtime: n,
		Took:    func(_ time.Duration, err error) { took = append(took, err) },
	})

	if err := r.Resize(t.Context(), pod(), plan.Step{ID: "s", Sizes: sizes()}); err != nil {
		t.Fatal(err)
	}
	if want := []string{"sandbox", "widen", "a.1", "b.1", "narrow"}; !slices.Equal(n.calls, want) {
		t.Errorf("%v, want %v", n.calls, want)
	}
	if len(took) != 1 || took[0] != nil {
		t.Errorf("counted: %v", took)
	}
}

func TestNothingFollowsAStepThatFails(t *testing.T) {
	all := []string{"sandbox", "widen", "a.1", "b.1", "narrow"}
	for i, name := range all {
		n := &node{fails: name, memory: podcgroup.Memory{Limit: -1}}
		err := New(Config{Cgroups: n, Runtime: n}).Resize(t.Context(), pod(), plan.Step{Sizes: sizes()})
		if err == nil || !slices.Equal(n.calls, all[:i+1]) {
			t.Errorf("%s fails: %v, %v", name, n.calls, err)
		}
	}
}

func TestMemoryBelowWhatIsUsedIsRefused(t *testing.T) {
	const lowered = "attempting to set container \"a\" memory limit (67108864) below current usage (67108864)"
	const whole = "attempting to set pod memory limit (67108864) below current usage (99)"
	for name, c := range map[string]struct {
		memory  podcgroup.Memory
		used    int64
		restart bool
		refused string
		calls   []string
	}{
		"a container": {
			memory:  podcgroup.Memory{Limit: -1},
			used:    64 * mebibyte,
			refused: "cannot decrease memory limits: " + lowered,
		},
		"the pod": {
			memory:  podcgroup.Memory{Used: 99, Limit: 100, Wanted: 98},
			refused: "cannot decrease memory limits: " + strings.ReplaceAll(whole, "67108864", "98"),
		},
		"both": {
			memory: podcgroup.Memory{Used: 99, Limit: 100, Wanted: 98},
			used:   64 * mebibyte,
			refused: "cannot decrease memory limits: [" +
				strings.ReplaceAll(whole, "67108864", "98") + ", " + lowered + "]",
		},
		"a container, while another one waits to be replaced": {
			memory:  podcgroup.Memory{Limit: -1},
			used:    64 * mebibyte,
			restart: true,
			refused: "cannot decrease memory limits: " + lowered,
			calls:   []string{"widen"},
		},
		"not, of a pod that is as full as it was allowed to be": {
			memory: podcgroup.Memory{Used: 100, Limit: 100, Wanted: 100},
			calls:  []string{"sandbox", "widen", "a.1", "b.1", "narrow"},
		},
	} {
		n := &node{memory: c.memory, used: c.used}
		step := plan.Step{Sizes: sizes(), Restart: c.restart}
		err := New(Config{Cgroups: n, Runtime: n}).Resize(t.Context(), pod(), step)
		got := ""
		if err != nil {
			got = err.Error()
		}

		if got != c.refused || !slices.Equal(n.calls, c.calls) {
			t.Errorf("%s: %q, %v", name, got, n.calls)
		}
	}
}
