package allocation

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/plan"
)

var t0 = time.Unix(1_800_000_000, 0)

// pod runs, and requests CPU in this version of it.
func pod(uid types.UID, generation int64, cpu string) *v1.Pod {
	requests := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: uid, Name: "p", Generation: generation},
		Spec: v1.PodSpec{Containers: []v1.Container{{
			Name:      "a",
			Resources: v1.ResourceRequirements{Requests: requests},
		}}},
		Status: v1.PodStatus{
			StartTime:          &metav1.Time{Time: t0},
			ObservedGeneration: generation,
			Phase:              v1.PodRunning,
		},
	}
}

func newLedger(root string) *Ledger { return New(root, slog.New(slog.DiscardHandler)) }

// cpu is what the pod has been given, as it may act.
func cpu(t *testing.T, l *Ledger, p *v1.Pod) string {
	t.Helper()
	state, err := l.Keep(p)
	if err != nil {
		t.Fatal(err)
	}
	return state.Pod.Spec.Containers[0].Resources.Requests.Cpu().String()
}

func TestAPodThatIsNotResizedIsNotCopiedAndHasNoRecord(t *testing.T) {
	root := t.TempDir()
	l := newLedger(root)
	p := pod("u", 1, "1")
	l.See(p, t0)

	state, err := l.Keep(p)
	if err != nil || state.Pod != p || state.Grant != nil || l.Of(p) != p {
		t.Errorf("%+v, %v", state, err)
	}
	if _, err := os.Stat(filepath.Join(root, "pods")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something was written: %v", err)
	}
}

func TestAResizeActsWhenItIsGivenAndOnDisk(t *testing.T) {
	root := t.TempDir()
	l := newLedger(root)
	l.See(pod("u", 1, "1"), t0)

	bigger := pod("u", 2, "2")
	if seen := l.See(bigger, t0); !seen.Due || seen.Before == nil {
		t.Errorf("%+v", seen)
	}
	if got := cpu(t, l, bigger); got != "1" {
		t.Errorf("before it is given: %s", got)
	}

	l.Grant(bigger, t0)
	if got := l.Of(bigger).Spec.Containers[0].Resources.Requests.Cpu().String(); got != "2" {
		t.Errorf("counted: %s", got)
	}
	if got := cpu(t, l, bigger); got != "2" {
		t.Errorf("after it is given: %s", got)
	}

	// Another agent finds it, even if the API asks for something else by now.
	next := newLedger(root)
	asked := pod("u", 3, "4")
	asked.Status.ObservedGeneration = 2
	if got := cpu(t, next, asked); got != "2" {
		t.Errorf("in the next life of the agent: %s", got)
	}

	state, _ := next.Keep(asked)
	if g := state.Grant; g == nil || g.Announced || g.Generation != 2 {
		t.Errorf("%+v", g)
	}
}

func TestAnOldRecordDoesNotCountWhereTheAPIShowsThatMoreWasGiven(t *testing.T) {
	root := t.TempDir()
	l := newLedger(root)
	l.See(pod("u", 1, "1"), t0)
	bigger := pod("u", 2, "2")
	l.See(bigger, t0)
	l.Grant(bigger, t0)
	cpu(t, l, bigger)

	// The record of this one was lost, with the power.
	if got := cpu(t, newLedger(root), pod("u", 3, "4")); got != "4" {
		t.Error(got)
	}
}

func TestARecordThatCannotBeWrittenKeepsThePodAsItIs(t *testing.T) {
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "pods"), nil, 0o600); err != nil {
		t.Fatal(err)
	}

	l := newLedger(root)
	l.See(pod("u", 1, "1"), t0)
	bigger := pod("u", 2, "2")
	l.See(bigger, t0)
	l.Grant(bigger, t0)

	state, err := l.Keep(bigger)
	got := state.Pod.Spec.Containers[0].Resources.Requests.Cpu().String()
	if err == nil || got != "1" || state.Pending == nil || state.Pending.Reason != v1.PodReasonDeferred {
		t.Errorf("%s, %+v, %v", got, state.Pending, err)
	}

	// When there is room on the disk again.
	if err := os.Remove(filepath.Join(root, "pods")); err != nil {
		t.Fatal(err)
	}
	if got := cpu(t, l, bigger); got != "2" {
		t.Errorf("with a record: %s", got)
	}
}

func TestARecordThatIsTornOrForeignIsSetAside(t *testing.T) {
	for name, content := range map[string]string{
		"torn":    `{"uid":"u","gen`,
		"foreign": `{"uid":"v","generation":2,"at":"2026-11-29T00:00:00Z","resources":{"containers":{}}}`,
		"empty":   ``,
	} {
		root := t.TempDir()
		dir := filepath.Join(root, "pods", "u")
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, recordFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}

		if got := cpu(t, newLedger(root), pod("u", 2, "2")); got != "2" {
			t.Errorf("%s: %s", name, got)
		}
		if _, err := os.Stat(filepath.Join(dir, asideFile)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWithoutARecordWhatTheAPIShowsIsGiven(t *testing.T) {
	p := pod("u", 2, "4")
	p.Status.ObservedGeneration = 1
	p.Status.ContainerStatuses = []v1.ContainerStatus{{
		Name:               "a",
		AllocatedResources: v1.ResourceList{v1.ResourceCPU: resource.MustParse("1")},
		Resources:          &v1.ResourceRequirements{},
	}}

	l := newLedger(t.TempDir())
	if seen := l.See(p, t0); !seen.Due {
		t.Errorf("%+v", seen)
	}
	if got := cpu(t, l, p); got != "1" {
		t.Error(got)
	}
}

func TestARequestThatIsRevertedIsDropped(t *testing.T) {
	l := newLedger(t.TempDir())
	l.See(pod("u", 1, "1"), t0)
	bigger := pod("u", 2, "2")
	l.See(bigger, t0)
	l.Refuse(bigger, plan.Pending{Reason: v1.PodReasonDeferred, Generation: 2}, t0)

	seen := l.See(pod("u", 3, "1"), t0)
	if seen.Dropped == nil || seen.Dropped.Pending == nil || seen.Over || l.Waiting() {
		t.Errorf("%+v", seen)
	}
	if state, _ := l.Keep(pod("u", 3, "1")); state.Grant != nil || state.Pending != nil {
		t.Errorf("%+v", state)
	}
}

func TestAPodThatEndsAsksForNothing(t *testing.T) {
	l := newLedger(t.TempDir())
	l.See(pod("u", 1, "1"), t0)
	l.See(pod("u", 2, "2"), t0)

	over := pod("u", 2, "2")
	over.Status.Phase = v1.PodFailed
	if seen := l.See(over, t0); seen.Dropped == nil || !seen.Over || l.Waiting() {
		t.Errorf("%+v", seen)
	}
}

func TestRefusalsAreNewsByReasonAndGeneration(t *testing.T) {
	l := newLedger(t.TempDir())
	l.See(pod("u", 1, "1"), t0)
	bigger := pod("u", 2, "2")
	l.See(bigger, t0)

	deferred := plan.Pending{Reason: v1.PodReasonDeferred, Message: "no room", Generation: 2}
	if !l.Refuse(bigger, deferred, t0) {
		t.Error("the first is no news")
	}

	deferred.Message = "less room"
	if l.Refuse(bigger, deferred, t0) {
		t.Error("a message is news")
	}
	if !l.Refuse(bigger, plan.Pending{Reason: v1.PodReasonInfeasible, Generation: 2}, t0) {
		t.Error("another reason is no news")
	}
	if requests := l.Requests(); len(requests) != 0 {
		t.Errorf("what is infeasible is asked for again: %v", requests)
	}
}

func TestRequestsAreInKubeletsOrder(t *testing.T) {
	l := newLedger(t.TempDir())
	ask := func(uid types.UID, from, to string, since time.Duration, change func(*v1.Pod)) {
		l.See(pod(uid, 1, from), t0)
		p := pod(uid, 2, to)
		change(p)
		l.See(p, t0.Add(since))
	}

	nothing := func(*v1.Pod) {}
	ask("late", "1", "2", time.Minute, nothing)
	ask("early", "1", "2", time.Second, nothing)
	ask("guaranteed", "1", "2", time.Hour, func(p *v1.Pod) { p.Status.QOSClass = v1.PodQOSGuaranteed })
	ask("important", "1", "2", time.Hour, func(p *v1.Pod) { p.Spec.Priority = new(int32(7)) })
	ask("smaller", "2", "1", 2*time.Hour, nothing)

	var got []types.UID
	for _, r := range l.Requests() {
		got = append(got, r.Pod.UID)
	}

	want := []types.UID{"smaller", "important", "guaranteed", "early", "late"}
	for i := range want {
		if i >= len(got) || got[i] != want[i] {
			t.Fatalf("%v, want %v", got, want)
		}
	}
}

func TestWhatOthersLeaveIsNoticed(t *testing.T) {
	l := newLedger(t.TempDir())
	l.See(pod("waits", 1, "1"), t0)
	l.See(pod("waits", 2, "2"), t0)
	l.See(pod("other", 1, "4"), t0)

	if seen := l.See(pod("other", 1, "4"), t0); seen.Freed {
		t.Error("nothing has changed")
	}

	over := pod("other", 1, "4")
	over.Status.Phase = v1.PodSucceeded
	if seen := l.See(over, t0); !seen.Freed || !seen.Over {
		t.Errorf("%+v", seen)
	}
	if seen := l.See(over, t0); seen.Freed {
		t.Error("it ends twice")
	}
}

func TestEventsHaveTheResources(t *testing.T) {
	want := `Pod resize started: ` +
		`{"containers":[{"name":"a","resources":{"requests":{"cpu":"2"}}}],"generation":2}`
	if got := Event("Pod resize started", pod("u", 2, "2"), 2, ""); got != want {
		t.Error(got)
	}
}
