package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/trivet-node/trivet/node/plan"
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

func TestARefusalIsRecognized(t *testing.T) {
	for _, how := range []string{"http", "tcp", "grpc"} {
		t.Run(how, func(t *testing.T) {
			closed := newClosedPort(t)
			c := check{
				dial:      (&net.Dialer{}).DialContext,
				probe:     &v1.Probe{ProbeHandler: handlers(closed.port)[how]},
				container: &v1.Container{Name: "c"},
				ip:        "127.0.0.1",
			}
			if err := c.run(t.Context()); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Fatalf("while nobody listens: %v", err)
			}

			serve(t, how, closed.listen(t))
			if err := c.run(t.Context()); err != nil {
				t.Errorf("when somebody listens: %v", err)
			}
		})
	}
}

// dialing is a port that refuses connections until a time.
func dialing(until time.Time) dialer {
	return func(context.Context, string, string) (net.Conn, error) {
		if time.Now().Before(until) {
			return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
		}
		client, server := net.Pipe()
		server.Close()
		return client, nil
	}
}

func TestAProgramIsReadyAsSoonAsItListens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &events{}
		m := New(&execs{}, make(looks, 1), said, noPods())
		defer m.Close()

		m.dial = dialing(time.Now().Add(100 * time.Millisecond))
		c := &v1.Container{Name: "c", ReadinessProbe: &v1.Probe{
			ProbeHandler:     handlers(80)["tcp"],
			PeriodSeconds:    3600,
			FailureThreshold: 1,
		}}

		m.Sync(testPod(), "10.0.0.2", []Instance{{ID: "x", Spec: c, Started: time.Now()}})

		// Tries are made after 0, 10, 30, 70 and 150 ms.
		time.Sleep(149 * time.Millisecond)
		synctest.Wait()
		if m.health("x").Ready {
			t.Error("ready before it listens")
		}

		time.Sleep(2 * time.Millisecond)
		synctest.Wait()
		if !m.health("x").Ready || len(said.all()) > 0 {
			t.Errorf("ready: %v; users were told %q", m.health("x").Ready, said.all())
		}
	})
}

func TestAProgramThatNeverListensFailsOncePerPeriod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &events{}
		m := New(&execs{}, make(looks, 1), said, noPods())
		defer m.Close()

		m.dial = dialing(time.Now().Add(time.Hour))
		c := &v1.Container{Name: "c", StartupProbe: &v1.Probe{
			ProbeHandler:     handlers(80)["tcp"],
			PeriodSeconds:    1,
			FailureThreshold: 3,
		}}

		m.Sync(testPod(), "10.0.0.2", []Instance{{ID: "x", Spec: c, Started: time.Now()}})

		// The first refusal counts when the first period is over.
		for i, want := range []int{0, 2, 3} {
			time.Sleep(900 * time.Millisecond)
			synctest.Wait()
			if got := len(said.all()); got != want {
				t.Errorf("%d failures after %d ms, want %d", got, 900*(i+1), want)
			}
		}

		if got := m.health("x").Unhealthy; got != plan.FailedStartup {
			t.Errorf("unhealthy %q", got)
		}
	})
}

func TestAClockThatWasSetBackHoldsNoProbeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := New(&execs{}, make(looks, 1), &events{}, noPods())
		defer m.Close()

		m.dial = dialing(time.Now().Add(2 * time.Hour))
		c := &v1.Container{Name: "c", ReadinessProbe: &v1.Probe{
			ProbeHandler:        handlers(80)["tcp"],
			InitialDelaySeconds: 2,
			PeriodSeconds:       1,
			FailureThreshold:    1,
		}}

		m.Sync(testPod(), "10.0.0.2", []Instance{{
			ID:       "x",
			Spec:     c,
			Started:  time.Now().Add(time.Hour),
			WasReady: true,
		}})

		time.Sleep(4 * time.Second)
		synctest.Wait()
		if m.health("x").Ready {
			t.Error("it is still ready, after its initial delay and a period")
		}
	})
}

func TestLivenessGainsNothingByRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := &events{}
		m := New(&execs{}, make(looks, 1), said, noPods())
		defer m.Close()

		m.dial = dialing(time.Now().Add(time.Hour))
		c := &v1.Container{Name: "c", LivenessProbe: &v1.Probe{ProbeHandler: handlers(80)["tcp"]}}
		m.Sync(testPod(), "10.0.0.2", []Instance{{ID: "x", Spec: c, Started: time.Now()}})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := len(said.all()); got != 1 {
			t.Errorf("%d failures at once, want 1", got)
		}
	})
}
