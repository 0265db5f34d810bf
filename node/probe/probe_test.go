package probe

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/node/plan"
	"github.com/trivet-node/trivet/node/runtime"
)

// execs answers exec probes by their command.
type execs struct {
	mu   sync.Mutex
	bad  map[string]error // nil error: exit code 1
	runs []string
}

func (e *execs) ExecSync(
	_ context.Context,
	_ string,
	command []string,
	_ time.Duration,
) ([]byte, int32, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.runs = append(e.runs, command[0])
	err, bad := e.bad[command[0]]
	if bad && err == nil {
		return []byte("no"), 1, nil
	}
	return nil, 0, err
}

func (e *execs) set(command string, bad bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.bad, command)
	if bad {
		e.bad[command] = err
	}
}

func probeOf(command string, period int32) *v1.Probe {
	return &v1.Probe{
		ProbeHandler:     v1.ProbeHandler{Exec: &v1.ExecAction{Command: []string{command}}},
		PeriodSeconds:    period,
		FailureThreshold: 2,
		SuccessThreshold: 1,
	}
}

func testPod() *v1.Pod {
	return &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u", Name: "p", Namespace: "n"}}
}

func TestStartupGatesLivenessAndReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &execs{bad: map[string]error{"startup": nil}}
		looks := make(looks, 10)
		m := New(e, looks, &events{}, noPods())
		defer m.Close()

		c := &v1.Container{
			Name:           "c",
			StartupProbe:   probeOf("startup", 1),
			LivenessProbe:  probeOf("live", 5),
			ReadinessProbe: probeOf("ready", 5),
		}

		c.StartupProbe.FailureThreshold = 100
		m.Sync(testPod(), "", []Instance{{ID: "x", Spec: c, Started: time.Now()}})
		time.Sleep(10500 * time.Millisecond)
		synctest.Wait()
		if h := m.health("x"); h.Started || h.Ready || slices.Contains(e.runs, "live") ||
			slices.Contains(e.runs, "ready") {
			t.Fatalf("before startup: %+v, runs %v", h, e.runs)
		}

		e.set("startup", false, nil)

		// The next turn; readiness is probed at once after it.
		time.Sleep(600 * time.Millisecond)
		synctest.Wait()
		if h := m.health("x"); !h.Started || !h.Ready || len(looks) == 0 {
			t.Fatalf("after startup: %+v, %d looks", h, len(looks))
		}
	})
}

func TestThresholdsAndRecovery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := &execs{bad: map[string]error{}}
		said := &events{}
		m := New(e, make(looks, 10), said, noPods())
		defer m.Close()

		c := &v1.Container{Name: "c", LivenessProbe: probeOf("live", 1), ReadinessProbe: probeOf("ready", 1)}
		c.LivenessProbe.TerminationGracePeriodSeconds = new(int64(5))
		m.Sync(testPod(), "", []Instance{{ID: "x", Spec: c, Started: time.Now()}})
		health := func(after time.Duration) plan.Health {
			time.Sleep(after)
			synctest.Wait()
			return m.health("x")
		}
		if h := health(100 * time.Millisecond); !h.Ready || h.Unhealthy != "" {
			t.Fatalf("healthy: %+v", h)
		}

		e.set("ready", true, nil)
		if h := health(time.Second); !h.Ready {
			t.Fatal("one failure of two is enough")
		}
		if h := health(time.Second); h.Ready {
			t.Fatal("two failures are not enough")
		}

		e.set("ready", false, nil)
		if h := health(time.Second); !h.Ready {
			t.Fatal("one success is not enough")
		}

		e.set("live", true, errors.New("runtime is away"))
		if h := health(5 * time.Second); h.Unhealthy != "" {
			t.Fatal("a probe that could not run counted as a failure")
		}

		if want := "Unhealthy: Liveness probe errored and resulted in unknown state: probe could not run: " +
			"runtime is away"; !slices.Contains(said.all(), want) {
			t.Fatalf("nobody learns of a probe that could not run: %v", said.all())
		}

		e.set("live", true, runtime.ErrTimeout)
		if h := health(3 * time.Second); h.Unhealthy != "Liveness" || *h.Grace != 5 {
			t.Fatalf("timeouts did not count: %+v", h)
		}
	})
}

func TestARestartedAgentStartsFromWhatWasShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(&execs{bad: map[string]error{}}, make(looks, 10), &events{}, noPods())
		defer m.Close()

		c := &v1.Container{Name: "c", StartupProbe: probeOf("s", 10), ReadinessProbe: probeOf("r", 10)}
		m.Sync(testPod(), "", []Instance{{
			ID:         "x",
			Spec:       c,
			Started:    time.Now(),
			WasStarted: true,
			WasReady:   true,
		}})
		if h := m.health("x"); !h.Started || !h.Ready {
			t.Errorf("%+v", h)
		}

		m.Sync(testPod(), "", nil)
		if len(m.pods) != 0 {
			t.Errorf("left %v", m.pods)
		}
	})
}

func TestHTTPProbes(t *testing.T) {
	other := httptest.NewServer(http.NotFoundHandler())
	defer other.Close()

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/ok":
			if r.Host != "app.example" || !strings.HasPrefix(r.UserAgent(), "kube-probe/") {
				w.WriteHeader(http.StatusBadRequest)
			}

		case "/same":
			http.Redirect(w, r, "/fail", http.StatusFound)
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/away":
			http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	defer server.Close()

	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}

	port, err := strconv.Atoi(u.Port())
	if err != nil {
		t.Fatal(err)
	}

	c := &v1.Container{Name: "c", Ports: []v1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}
	for path, healthy := range map[string]bool{
		"/ok":   true,
		"/fail": false,
		"/same": false,
		"/loop": false,
		"/away": true,
	} {
		a := &v1.HTTPGetAction{
			Path:        path,
			Port:        intstr.FromString("web"),
			HTTPHeaders: []v1.HTTPHeader{{Name: "host", Value: "app.example"}},
		}
		if _, err := HTTPGet(t.Context(), a, c, "127.0.0.1", "kube-probe/1.37"); (err == nil ||
			errors.Is(err, ErrRedirected)) != healthy {
			t.Errorf("%s: %v", path, err)
		}
	}

	if _, err := HTTPGet(t.Context(), &v1.HTTPGetAction{
		Port: intstr.FromString("nope"),
	}, c, "127.0.0.1", ""); err == nil {
		t.Error("a port that does not exist was found")
	}
}

// hanging runs commands of the name hang until their caller gives up.
type hanging struct{ execs }

func (h *hanging) ExecSync(
	ctx context.Context,
	id string,
	command []string,
	timeout time.Duration,
) ([]byte, int32, error) {
	if command[0] == "hang" {
		<-ctx.Done()
		return nil, 0, ctx.Err()
	}
	return h.execs.ExecSync(ctx, id, command, timeout)
}

func TestCommandsThatHangHoldUpNoOtherProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(&hanging{}, make(looks, 10), &events{}, noPods())
		defer m.Close()

		m.dial = dialing(time.Now())
		var all []Instance
		add := func(id string, probe *v1.Probe) {
			c := &v1.Container{Name: "c", ReadinessProbe: probe}
			all = append(all, Instance{ID: id, Spec: c, Started: time.Now()})
		}

		for i := range 2 * maxStarts {
			add(strconv.Itoa(i), probeOf("hang", 3600))
		}

		m.Sync(testPod(), "10.0.0.2", all)
		synctest.Wait()

		add("tcp", &v1.Probe{ProbeHandler: handlers(80)["tcp"]})
		add("exec", probeOf("fine", 3600))
		m.Sync(testPod(), "10.0.0.2", all)
		synctest.Wait()
		if !m.health("tcp").Ready {
			t.Error("a connection waits for commands")
		}

		time.Sleep(2*startLimit + time.Millisecond)
		synctest.Wait()
		if !m.health("exec").Ready {
			t.Error("a command waits for those that hang")
		}
	})
}
