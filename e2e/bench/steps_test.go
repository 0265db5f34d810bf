package bench

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const ms = time.Millisecond

func TestStepsAreBetweenNeighbours(t *testing.T) {
	at := func(n int) time.Time { return time.Unix(100, 0).Add(time.Duration(n) * ms) }
	for name, c := range map[string]struct {
		moments []time.Time
		want    Steps
	}{
		"in order":                   {[]time.Time{at(0), at(3), at(10), at(11)}, Steps{3 * ms, 7 * ms, ms}},
		"seen after the next one":    {[]time.Time{at(0), at(5), at(4), at(9)}, Steps{4 * ms, 0, 5 * ms}},
		"seen after all later ones":  {[]time.Time{at(0), at(9), at(4), at(6)}, Steps{4 * ms, 0, 2 * ms}},
		"the sum is always the same": {[]time.Time{at(0), at(20), at(20), at(20)}, Steps{20 * ms, 0, 0}},
	} {
		if got := stepsBetween(c.moments...); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestMedianIsTakenOfEachStep(t *testing.T) {
	all := []Steps{
		{3 * ms, 10 * ms, 0, 7 * ms, ms},
		{1 * ms, 30 * ms, 0, 8 * ms, ms},
		{2 * ms, 20 * ms, 9 * ms, 9 * ms, ms},
	}
	want := Steps{2 * ms, 20 * ms, 0, 8 * ms, ms}
	if got := MedianSteps(all); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

// dater is a Runtime that made everything at the same moment.
type dater struct {
	at  time.Time
	err error
}

func (d dater) Dates(context.Context, string, string) (Dated, error) {
	return Dated{Sandbox: d.at, Container: d.at, Started: d.at}, d.err
}

// instant returns a Bench whose pods are Ready as soon as they are created.
func instant() *Bench {
	client := fake.NewClientset()
	client.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		created := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		created.Spec.NodeName = "n"
		created.Status.Conditions = pod("", corev1.ConditionTrue).Status.Conditions
		return false, nil, nil
	})
	return &Bench{Client: client, Namespace: "bench"}
}

func TestPodIsDeletedAlsoWhenItsDatesAreNotKnown(t *testing.T) {
	b, unknown := instant(), errors.New("no such pod")
	_, err := b.Steps(t.Context(), "n", "a", dater{err: unknown})
	if !errors.Is(err, unknown) {
		t.Errorf("error %v, want that of the runtime", err)
	}
	left, err := b.Client.CoreV1().Pods("bench").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(left.Items) != 0 {
		t.Errorf("%d pods are left (%v)", len(left.Items), err)
	}
}

func TestStepsOfAPodEndWhereItsRuntimeSays(t *testing.T) {
	made := time.Now().Add(-time.Hour)
	steps, err := instant().Steps(t.Context(), "n", "a", dater{at: made})
	if err != nil || len(steps) != len(StepNames) {
		t.Fatalf("steps %v, %v", steps, err)
	}
	if last := steps[len(steps)-1]; last < time.Hour {
		t.Errorf("Ready %v after the start, which was an hour before", last)
	}
}

func TestPodWithoutANodeIsNotScheduled(t *testing.T) {
	l := newLives(watch.NewFake())
	waiting := pod("a", corev1.ConditionFalse)
	l.note(watch.Event{Type: watch.Added, Object: waiting}, time.Unix(1, 0))
	if at := l.seen["a"].scheduled; !at.IsZero() {
		t.Errorf("scheduled at %v", at)
	}

	bound := waiting.DeepCopy()
	bound.Spec.NodeName = "n"
	for second := range int64(2) {
		l.note(watch.Event{Type: watch.Modified, Object: bound}, time.Unix(2+second, 0))
	}
	if at := l.seen["a"].scheduled; at.Unix() != 2 {
		t.Errorf("scheduled at %v, want the first event with a node", at)
	}
}

// server is a CRI server with one pod for each name in its list.
type server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	pods []string
}

func (s server) ListPodSandbox(
	_ context.Context, r *runtimeapi.ListPodSandboxRequest,
) (*runtimeapi.ListPodSandboxResponse, error) {
	resp := &runtimeapi.ListPodSandboxResponse{}
	for _, pod := range s.pods {
		if pod == r.Filter.LabelSelector["io.kubernetes.pod.name"] {
			resp.Items = append(resp.Items, &runtimeapi.PodSandbox{Id: "sandbox-" + pod})
		}
	}
	return resp, nil
}

func (s server) PodSandboxStatus(
	context.Context, *runtimeapi.PodSandboxStatusRequest,
) (*runtimeapi.PodSandboxStatusResponse, error) {
	status := &runtimeapi.PodSandboxStatus{CreatedAt: 1}
	return &runtimeapi.PodSandboxStatusResponse{Status: status}, nil
}

func (s server) ListContainers(
	_ context.Context, r *runtimeapi.ListContainersRequest,
) (*runtimeapi.ListContainersResponse, error) {
	container := &runtimeapi.Container{Id: "container-of-" + r.Filter.PodSandboxId}
	return &runtimeapi.ListContainersResponse{Containers: []*runtimeapi.Container{container}}, nil
}

func (s server) ContainerStatus(
	context.Context, *runtimeapi.ContainerStatusRequest,
) (*runtimeapi.ContainerStatusResponse, error) {
	status := &runtimeapi.ContainerStatus{CreatedAt: 2, StartedAt: 3}
	return &runtimeapi.ContainerStatusResponse{Status: status}, nil
}

func TestDatesAreReadOverTheSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cri.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	g := grpc.NewServer()
	t.Cleanup(g.Stop)
	runtimeapi.RegisterRuntimeServiceServer(g, server{pods: []string{"a", "b", "b"}})
	go func() { _ = g.Serve(listener) }()

	cri, err := DialCRI(path)
	if err != nil {
		t.Fatal(err)
	}
	defer cri.Close()

	got, err := cri.Dates(t.Context(), "bench", "a")
	want := Dated{Sandbox: time.Unix(0, 1), Container: time.Unix(0, 2), Started: time.Unix(0, 3)}
	if err != nil || got != want {
		t.Errorf("dates %v, %v", got, err)
	}

	_, err = cri.Dates(t.Context(), "bench", "b")
	if err == nil || !strings.Contains(err.Error(), "2 sandboxes") {
		t.Errorf("error %v does not say that there are two", err)
	}
}
