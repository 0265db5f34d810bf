package podworker

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/manifest"
	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/queue"
	"github.com/trivet-node/trivet/node/status"
)

// server is the API server of one pod, as a reporter sees it, and what was sent to it.
type server struct {
	Pods
	API
	mu      sync.Mutex // guards what follows
	fail    error      // of patches; nil: they work
	answer  func(*v1.Pod)
	hold    chan struct{} // patches wait until it is closed; nil: they do not
	patches []string
	events  []string
	saw     int
	mirror  *v1.Pod
	listed  bool
}

func (s *server) PatchStatus(_ context.Context, pod *v1.Pod, patch []byte) (*v1.Pod, error) {
	s.mu.Lock()
	s.patches = append(s.patches, string(patch))
	hold := s.hold
	s.mu.Unlock()
	if hold != nil {
		<-hold
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	if s.fail != nil {
		return nil, s.fail
	}

	out := pod.DeepCopy()
	if s.answer != nil {
		s.answer(out)
	}

	return out, nil
}

func (s *server) Saw(*v1.Pod) { s.saw++ }

func (s *server) MirrorOf(*v1.Pod) (*v1.Pod, bool) { return s.mirror, s.listed }

func (s *server) Pod(_ *v1.Pod, container, _, reason, _ string) {
	s.events = append(s.events, reason+" "+container)
}

func (s *server) PodOnce(_ *v1.Pod, _, reason, _ string, _ map[string]string) {
	s.events = append(s.events, reason)
}

// desk is a reporter in the bubble of a test, with the pod that it reports and the looks that it asks for.
type desk struct {
	*reporter
	server *server
	pod    *pod
	steps  sync.WaitGroup

	mu    sync.Mutex // guards looks
	looks []string   // as "DELAY: REASONS"
}

func newDesk(t *testing.T) *desk {
	d := &desk{server: &server{}, pod: newPod("u", 0)}
	q := queue.New()
	d.reporter = &reporter{
		pods:   d.server,
		api:    d.server,
		queue:  q,
		events: d.server,
		meter:  unmetered{},
		log:    slog.New(slog.DiscardHandler),
		steps:  &d.steps,
		node:   status.Node{IPs: []string{"192.0.2.1"}, Runtime: "rt"},
	}

	began := time.Now()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		q.Run(ctx, 1, func(_ context.Context, _ types.UID, why queue.Reasons) {
			d.mu.Lock()
			defer d.mu.Unlock()

			d.looks = append(d.looks, time.Since(began).String()+": "+why.String())
		})
	})

	t.Cleanup(func() {
		cancel()
		running.Wait()
		d.steps.Wait()
	})

	return d
}

// after returns the looks that were asked for when some time has passed.
func (d *desk) after(wait time.Duration) []string {
	time.Sleep(wait)
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.looks)
}

// view is the plan's view of a pod with a container in a state, Running or Created.
func view(state plan.State, mod func(*v1.Pod)) *plan.View {
	pod := &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{UID: "u", Namespace: "n", Name: "p"},
		Spec:       v1.PodSpec{Containers: []v1.Container{{Name: "c", Image: "i"}}},
	}
	if mod != nil {
		mod(pod)
	}

	known := plan.New("u", 0)
	known.Want(pod)
	known.See(plan.Observed{
		Sandboxes:  []plan.Sandbox{{ID: "s", Ready: true}},
		Containers: []plan.Container{{ID: "1", Name: "c", SandboxID: "s", State: state, Started: time.Now()}},
	})

	d := known.Decide(map[string]plan.Health{"1": {Started: true, Ready: true}}, time.Now())
	return &d.View
}

func (d *desk) mustReport(t *testing.T, v *plan.View, sending bool) {
	t.Helper()
	if err := d.report(t.Context(), d.pod, v, sending); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestWhatUsersWaitForIsSentAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.mustReport(t, view(plan.Running, nil), false)
		if len(d.server.patches) != 1 || !strings.Contains(d.server.patches[0], `"phase":"Running"`) ||
			d.server.saw != 1 {
			t.Errorf("patches %q, %d answers taken", d.server.patches, d.server.saw)
		}
		if looks := d.after(time.Hour); len(looks) > 0 {
			t.Errorf("looks %q", looks)
		}
	})
}

func TestAChangeOnItsWayWaitsForWhatFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.mustReport(t, view(plan.Created, func(p *v1.Pod) { p.Status.Phase = v1.PodPending }), false)
		if len(d.server.patches) != 0 {
			t.Errorf("patches %q", d.server.patches)
		}
		if looks := d.after(time.Hour); !slices.Equal(looks, []string{"300ms: status due"}) {
			t.Errorf("looks %q", looks)
		}

		d.mustReport(t, view(plan.Created, func(p *v1.Pod) { p.Status.Phase = v1.PodPending }), false)
		if len(d.server.patches) != 1 {
			t.Errorf("%d patches when the time is over", len(d.server.patches))
		}
	})
}

func TestWhatChangesWhileAPatchIsOnItsWayIsLookedAtAfterIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.server.hold = make(chan struct{})
		d.mustReport(t, view(plan.Running, nil), false)
		d.mustReport(t, view(plan.Running, nil), d.pod.beginLook(0))
		if looks := d.after(time.Second); len(d.server.patches) != 1 || len(looks) > 0 {
			t.Errorf("%d patches, looks %q", len(d.server.patches), looks)
		}

		close(d.server.hold)
		if looks := d.after(time.Second); !slices.Equal(looks, []string{"1s: status sent"}) {
			t.Errorf("looks %q", looks)
		}
	})
}

// The look may have seen the pod as it was before the answer.
func TestAnAnswerThatComesDuringALookLeadsToAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.mustReport(t, view(plan.Running, nil), true)
		if looks := d.after(0); len(d.server.patches) != 0 ||
			!slices.Equal(looks, []string{"0s: status sent"}) {
			t.Errorf("%d patches, looks %q", len(d.server.patches), looks)
		}
	})
}

func TestAPatchThatFailedIsSentAgain(t *testing.T) {
	pods := schema.GroupResource{Resource: "pods"}
	for _, c := range []struct {
		name string
		err  error
		want []string
	}{
		{"the API server is away", errors.New("connection refused"), []string{"1s: retry"}},
		{"the pod has gone", apierrors.NewNotFound(pods, "p"), nil},
		{"it is another pod", apierrors.NewConflict(pods, "p", errors.New("UID")), nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.server.fail = c.err
				d.mustReport(t, view(plan.Running, nil), false)
				if looks := d.after(time.Hour); !slices.Equal(looks, c.want) {
					t.Errorf("looks %q, want %q", looks, c.want)
				}
			})
		})
	}
}

func TestAnAnswerThatShowsWhatOthersDidLeadsToALook(t *testing.T) {
	gate := v1.PodCondition{Type: "gate", Status: v1.ConditionTrue}
	for _, c := range []struct {
		name   string
		answer func(*v1.Pod)
		look   bool
	}{
		{"nothing", func(*v1.Pod) {}, false},
		{"another spec", func(p *v1.Pod) { p.Generation++ }, true},
		{"a label", func(p *v1.Pod) { p.Labels = map[string]string{"a": "b"} }, true},
		{"a deletion", func(p *v1.Pod) { p.DeletionGracePeriodSeconds = new(int64(30)) }, true},
		{"a readiness gate", func(p *v1.Pod) { p.Status.Conditions = []v1.PodCondition{gate} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDesk(t)
				d.server.answer = c.answer
				d.mustReport(t, view(plan.Running, nil), false)

				if got := len(d.after(0)) > 0; got != c.look {
					t.Errorf("look: %v, want %v", got, c.look)
				}
			})
		})
	}
}

func TestAStaticPodIsReportedThroughItsMirror(t *testing.T) {
	static := func(p *v1.Pod) {
		p.Annotations = map[string]string{
			manifest.AnnotationSource: manifest.SourceFile,
		}
	}

	synctest.Test(t, func(t *testing.T) {
		d := newDesk(t)
		d.mustReport(t, view(plan.Running, static), false)
		if len(d.server.patches) != 0 {
			t.Error("reported before it is known what the mirror shows")
		}

		d.server.listed = true
		d.mustReport(t, view(plan.Running, static), false)
		if len(d.server.patches) != 1 {
			t.Errorf("%d patches without a mirror, want one, which makes it", len(d.server.patches))
		}
	})
}

func TestContainersThatBeginToBackOffAreAnnounced(t *testing.T) {
	d := &desk{server: &server{}}
	r := &reporter{events: d.server}
	of := func(reason string) *v1.PodStatus {
		state := v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}
		return &v1.PodStatus{ContainerStatuses: []v1.ContainerStatus{{Name: "c", State: state}}}
	}

	for _, reason := range []string{status.ReasonCrashLoop, status.ReasonPullBackOff, "ContainerCreating"} {
		r.announce(&v1.Pod{}, of(reason))
	}

	r.announce(&v1.Pod{Status: *of(status.ReasonCrashLoop)}, of(status.ReasonCrashLoop))
	if want := []string{"BackOff c", "BackOff c"}; !slices.Equal(d.server.events, want) {
		t.Errorf("events %q, want %q", d.server.events, want)
	}
}
