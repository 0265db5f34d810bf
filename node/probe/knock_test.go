package probe

import (
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// closedPort returns a port of 127.0.0.1 that nobody listens on.
func closedPort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// handlers asks the port in each way that connects to it.
func handlers(port int) map[string]v1.ProbeHandler {
	return map[string]v1.ProbeHandler{
		"http": {HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt(port)}},
		"tcp":  {TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(port)}},
		"grpc": {GRPC: &v1.GRPCAction{Port: int32(port)}},
	}
}

// serve answers on the port to all of them, HTTP or gRPC.
func serve(t *testing.T, how string, address string) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return
	}
	if how == "grpc" {
		s := grpc.NewServer()
		grpc_health_v1.RegisterHealthServer(s, health.NewServer())
		t.Cleanup(s.Stop)
		go s.Serve(l)
		return
	}
	s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	t.Cleanup(func() { s.Close() })
	go s.Serve(l)
}

func TestAProgramIsReadyAsSoonAsItListens(t *testing.T) {
	for _, how := range []string{"http", "tcp", "grpc"} {
		t.Run(how, func(t *testing.T) {
			port := closedPort(t)
			ready := make(chan struct{}, 1)
			m := New(&execs{}, func(types.UID) { ready <- struct{}{} }, func(_ *v1.Pod, _, _, text string) { t.Errorf("event: %s", text) })
			defer m.Close()
			c := &v1.Container{Name: "c", ReadinessProbe: &v1.Probe{ProbeHandler: handlers(port)[how], PeriodSeconds: 3600, FailureThreshold: 1}}
			m.Sync(testPod(), "127.0.0.1", []Instance{{ID: "x", Spec: c, Started: time.Now()}})
			refused := func() bool {
				m.mu.Lock()
				defer m.mu.Unlock()
				return m.pods["u"]["x"].probes[readiness].pause > 0
			}
			for !refused() {
				time.Sleep(time.Millisecond)
			}
			if m.Health("u")["x"].Ready {
				t.Fatal("ready before it listens")
			}
			serve(t, how, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
			<-ready
			if !m.Health("u")["x"].Ready {
				t.Error("not ready")
			}
		})
	}
}

func TestAProgramThatNeverListensFailsOncePerPeriod(t *testing.T) {
	for how, handler := range handlers(closedPort(t)) {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			failed := make(chan struct{}, 1)
			var events int // written by the goroutine that notifies next
			m := New(&execs{}, func(types.UID) { failed <- struct{}{} }, func(*v1.Pod, string, string, string) { events++ })
			defer m.Close()
			began := time.Now()
			c := &v1.Container{Name: "c", StartupProbe: &v1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 3}}
			m.Sync(testPod(), "127.0.0.1", []Instance{{ID: "x", Spec: c, Started: began}})
			<-failed
			if took := time.Since(began); took < 2*time.Second || events != 3 || m.Health("u")["x"].Unhealthy != "Startup" {
				t.Errorf("unhealthy %q after %v and %d failures", m.Health("u")["x"].Unhealthy, took, events)
			}
		})
	}
}
