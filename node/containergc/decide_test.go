package containergc

import (
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// world reads "POD/NAME.MINUTES" as a container that was created so many minutes ago and has ended, with +
// behind it as one that runs and with ? as one that is only created. Each pod has the sandbox "box-POD".
// "POD:live", "POD:ended" and "POD:evicted" say what the API has of a pod.
func world(text string) state {
	s := state{now: noon}
	fates := map[string]fate{}
	for word := range strings.FieldsSeq(text) {
		if pod, what, ok := strings.Cut(word, ":"); ok {
			fates[pod] = map[string]fate{"live": live, "ended": ended, "evicted": evicted}[what]
			s.sandboxes = append(s.sandboxes, runtime.Sandbox{
				ID:    "box-" + pod,
				Pod:   runtime.Pod{UID: pod},
				Ready: what == "live",
			})
			continue
		}

		c := runtime.Container{ID: strings.TrimRight(word, "+?"), State: plan.Exited}
		switch {
		case strings.HasSuffix(word, "+"):
			c.State = plan.Running
		case strings.HasSuffix(word, "?"):
			c.State = plan.Created
		}

		pod, rest, _ := strings.Cut(c.ID, "/")
		name, minutes, _ := strings.Cut(rest, ".")
		ago, err := strconv.Atoi(minutes)
		if err != nil {
			panic(err)
		}

		c.Pod.UID, c.Name, c.SandboxID = pod, name, "box-"+pod
		c.Created = noon.Add(-time.Duration(ago) * time.Minute)
		s.containers = append(s.containers, c)
	}

	s.fate = func(uid types.UID) fate { return fates[string(uid)] }
	return s
}

func (d decision) String() string {
	var out []string
	for _, c := range d.containers {
		out = append(out, c.ID)
	}
	for _, s := range d.sandboxes {
		out = append(out, s.ID)
	}
	return strings.Join(out, " ")
}

func TestWhatIsRemoved(t *testing.T) {
	usual := Policy{PerContainer: 1, Total: -1}
	for _, c := range []struct {
		name    string
		policy  Policy
		reclaim bool
		world   string
		want    string
	}{
		{"a pod that runs keeps one old instance", usual, false,
			"p:live p/a.1+ p/a.2 p/a.3 p/a.4", "p/a.4 p/a.3"},
		{"and so does one that waits for its restart", usual, false,
			"p:live p/a.1 p/a.2 p/a.3", "p/a.3"},
		{"and one that has ended", usual, false,
			"p:ended p/a.1 p/a.2 p/a.3", "p/a.3"},
		{"none is kept beside the newest", Policy{PerContainer: 0, Total: -1}, false,
			"p:live p/a.1 p/a.2 p/b.2+ p/b.3", "p/b.3 p/a.2"},
		{"all are kept", Policy{PerContainer: -1, Total: -1}, false,
			"p:live p/a.1 p/a.2 p/a.3 p/a.4", ""},
		{"young ones stay", Policy{PerContainer: 1, Total: -1, MinAge: 4 * time.Minute}, false,
			"p:live p/a.1 p/a.2 p/a.3 p/a.4 p/a.5", "p/a.5 p/a.4"},
		{"an instance that is about to start stays", usual, false,
			"p:live p/a.1? p/a.2 p/a.3", "p/a.3"},
		{"the least that the node keeps is the newest of each", Policy{PerContainer: 1, Total: 0}, false,
			"p:live p/a.1+ p/a.2 q:live q/a.3 q/a.4", "q/a.4 p/a.2"},
		{"the node keeps the newest", Policy{PerContainer: 2, Total: 2}, false,
			"p:live p/a.1+ p/a.2 p/a.6 q:live q/a.3+ q/a.4 q/a.5 r:ended r/a.7", "r/a.7 p/a.6 q/a.5"},

		{"a pod that was evicted keeps nothing", usual, false,
			"p:evicted p/a.1 p/b.2", "p/b.2 p/a.1 box-p"},
		{"but what still runs in it", usual, false,
			"p:evicted p/a.1 p/b.2+", "p/a.1"},
		{"young ones of an evicted pod stay", Policy{PerContainer: 1, Total: -1, MinAge: time.Hour}, false,
			"p:evicted p/a.1 p/b.70", "p/b.70"},
		{"a pod that has ended keeps its containers", usual, false, "p:ended p/a.1 p/b.2", ""},
		{"until space is needed", usual, true, "p:ended p/a.1 p/b.2", "p/b.2 p/a.1 box-p"},
		{"pods that have not ended give what they give anyway", usual, true,
			"p:live p/a.1 p/a.2 p/a.3 q:live q/a.1+", "p/a.3"},
		{"a pod that the API does not have is not ours to end", usual, true, "p/a.1 p/b.2", ""},
	} {
		s := world(c.world)
		s.reclaim = c.reclaim
		if got := c.policy.decide(s).String(); got != c.want {
			t.Errorf("%s: %q removes %q, want %q", c.name, c.world, got, c.want)
		}
	}
}

func TestOldSandboxesOfEndedPodsGo(t *testing.T) {
	s := world("p:ended q:live")
	for i, pod := range []string{"p", "q", "p", "q"} {
		s.sandboxes = append(s.sandboxes, runtime.Sandbox{
			ID:      "new-" + pod + strconv.Itoa(i),
			Pod:     runtime.Pod{UID: pod},
			Created: noon.Add(time.Duration(i) * time.Minute),
		})
	}
	s.containers = []runtime.Container{{ID: "c", Pod: runtime.Pod{UID: "p"}, Name: "a", SandboxID: "new-p0"}}

	got := Policy{PerContainer: 1, Total: -1}.decide(s).String()
	if got != "box-p" {
		t.Errorf("removed %q, want the sandbox that is neither the newest nor holds anything", got)
	}
}

func TestFateOfPods(t *testing.T) {
	of := func(phase v1.PodPhase, reason string) *v1.Pod {
		return &v1.Pod{Status: v1.PodStatus{Phase: phase, Reason: reason}}
	}
	got := []fate{
		fateOf(nil),
		fateOf(of("", "")),
		fateOf(of(v1.PodRunning, "")),
		fateOf(of(v1.PodSucceeded, "")),
		fateOf(of(v1.PodFailed, "DeadlineExceeded")),
		fateOf(of(v1.PodFailed, "Evicted")),
	}
	if want := []fate{unknown, live, live, ended, ended, evicted}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
