package rpc

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/trivet-node/trivet/internal/metric"
	"github.com/trivet-node/trivet/internal/retry"
	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// connect serves gRPC's own health service, observed on both sides.
func connect(t *testing.T, server, client Observer) healthv1.HealthClient {
	t.Helper()
	path := testenv.ShortDir(t) + "/s"
	listener, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	s := grpc.NewServer(ServerOptions(server)...)
	healthv1.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(listener) }()
	t.Cleanup(s.Stop)

	conn, err := socket.Dial(path, DialOptions(client)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return healthv1.NewHealthClient(conn)
}

func scrape(r *prometheus.Registry) string {
	w := httptest.NewRecorder()
	handler := metric.Handler(r, slog.Default())
	handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	return w.Body.String()
}

// await polls until the metrics have a line.
func await(t *testing.T, r *prometheus.Registry, want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	var got string
	for range retry.Every(ctx, time.Millisecond) {
		got = scrape(r)
		if strings.Contains(got, "\n"+want+"\n") {
			return
		}
	}
	t.Fatalf("%q is not in\n%s", want, got)
}

func TestCallsAreCountedByMethodAndCodeOnBothSides(t *testing.T) {
	server, client := metric.NewCalls("x_call", "calls served"), metric.NewCalls("y_call", "calls made")
	r := prometheus.NewRegistry()
	r.MustRegister(server, client)
	api := connect(t, server.Observe, client.Observe)

	if _, err := api.Check(t.Context(), &healthv1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Check(t.Context(), &healthv1.HealthCheckRequest{Service: "no"}); err == nil {
		t.Fatal("no error")
	}

	for _, side := range []string{"x", "y"} {
		await(t, r, side+`_calls_total{code="OK",method="Check"} 1`)
		await(t, r, side+`_calls_total{code="NotFound",method="Check"} 1`)
		await(t, r, side+`_call_duration_seconds_count{method="Check"} 2`)
	}
}

func TestAStreamIsCountedWhenItEnds(t *testing.T) {
	server, client := metric.NewCalls("x_call", "calls served"), metric.NewCalls("y_call", "calls made")
	r := prometheus.NewRegistry()
	r.MustRegister(server, client)
	api := connect(t, server.Observe, client.Observe)

	ctx, cancel := context.WithCancel(t.Context())
	stream, err := api.Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	if got := scrape(r); strings.Contains(got, "Watch") {
		t.Errorf("an open stream is counted:\n%s", got)
	}

	// The client lets it go without another Recv.
	cancel()
	await(t, r, `y_calls_total{code="Canceled",method="Watch"} 1`)
	await(t, r, `x_call_duration_seconds_count{method="Watch"} 1`)
}

func TestErrorsOfContextsHaveTheirCodes(t *testing.T) {
	for err, want := range map[error]codes.Code{
		nil:                      codes.OK,
		context.Canceled:         codes.Canceled,
		context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		if got := codeOf(err); got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
}
