package probe

import (
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// closedPort is a socket on a port of 127.0.0.1 that refuses connections until it listens: it is bound, so
// nobody else gets the port.
type closedPort struct {
	socket *os.File
	port   int
}

func newClosedPort(t *testing.T) closedPort {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}

	socket := os.NewFile(uintptr(fd), "socket")
	t.Cleanup(func() { socket.Close() })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}

	address, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}

	return closedPort{socket, address.(*unix.SockaddrInet4).Port}
}

func (p closedPort) listen(t *testing.T) net.Listener {
	t.Helper()
	if err := unix.Listen(int(p.socket.Fd()), 16); err != nil {
		t.Fatal(err)
	}
	l, err := net.FileListener(p.socket)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// handlers asks the port in each way that connects to it.
func handlers(port int) map[string]v1.ProbeHandler {
	return map[string]v1.ProbeHandler{
		"http": {HTTPGet: &v1.HTTPGetAction{Port: intstr.FromInt(port)}},
		"tcp":  {TCPSocket: &v1.TCPSocketAction{Port: intstr.FromInt(port)}},
		"grpc": {GRPC: &v1.GRPCAction{Port: int32(port)}},
	}
}

// serve answers to all of them, HTTP or gRPC.
func serve(t *testing.T, how string, l net.Listener) {
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
			closed := newClosedPort(t)
			ready := make(chan struct{}, 1)
			m := New(
				&execs{},
				func(types.UID) { ready <- struct{}{} },
				func(_ *v1.Pod, _, _, text string) { t.Errorf("event: %s", text) },
			)
			defer m.Close()

			c := &v1.Container{
				Name: "c",
				ReadinessProbe: &v1.Probe{
					ProbeHandler:     handlers(closed.port)[how],
					PeriodSeconds:    3600,
					FailureThreshold: 1,
				},
			}

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

			serve(t, how, closed.listen(t))
			<-ready
			if !m.Health("u")["x"].Ready {
				t.Error("not ready")
			}
		})
	}
}

func TestAProgramThatNeverListensFailsOncePerPeriod(t *testing.T) {
	for how, handler := range handlers(newClosedPort(t).port) {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			failed := make(chan struct{}, 1)

			// written by the goroutine that notifies next
			var events int
			m := New(
				&execs{},
				func(types.UID) { failed <- struct{}{} },
				func(*v1.Pod, string, string, string) { events++ },
			)
			defer m.Close()

			began := time.Now()
			c := &v1.Container{
				Name:         "c",
				StartupProbe: &v1.Probe{ProbeHandler: handler, PeriodSeconds: 1, FailureThreshold: 3},
			}

			m.Sync(testPod(), "127.0.0.1", []Instance{{ID: "x", Spec: c, Started: began}})
			<-failed
			if took := time.Since(began); took < 2*time.Second || events != 3 ||
				m.Health("u")["x"].Unhealthy != "Startup" {
				t.Errorf("unhealthy %q after %v and %d failures", m.Health("u")["x"].Unhealthy, took, events)
			}
		})
	}
}
