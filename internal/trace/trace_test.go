package trace_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/trivet-node/trivet/internal/trace"
	"github.com/trivet-node/trivet/internal/trace/receiver"
)

// listen returns a receiver and its endpoint.
func listen(t *testing.T) (*receiver.Receiver, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "otlp.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	r := receiver.Serve(l)
	t.Cleanup(r.Close)
	return r, "unix://" + path
}

func provider(t *testing.T, endpoint, service string, samples int) *trace.Provider {
	t.Helper()
	p, err := trace.New(t.Context(), trace.Config{
		Endpoint:          endpoint,
		Service:           service,
		SamplesPerMillion: samples,
		Log:               slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve serves gRPC's health service with options, and returns a client of it.
func serve(
	t *testing.T, server []grpc.ServerOption, client []grpc.DialOption,
) healthpb.HealthClient {
	t.Helper()
	path := filepath.Join(t.TempDir(), "server.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	s := grpc.NewServer(server...)
	healthpb.RegisterHealthServer(s, health.NewServer())
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)

	client = append(client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	conn, err := grpc.NewClient("unix://"+path, client...)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = conn.Close() })

	return healthpb.NewHealthClient(conn)
}

func TestACallIsOneTraceAcrossTwoPrograms(t *testing.T) {
	received, endpoint := listen(t)
	agent := provider(t, endpoint, "agent", 1e6)
	server := provider(t, endpoint, "server", 0)
	client := serve(t, server.ServerOptions(), agent.ClientOptions())

	began := time.Now().Add(-time.Minute)
	root := agent.Root("pod start", began, trace.Attribute{Key: "k8s.pod.name", Value: "web"})
	ctx := root.Under(t.Context())
	if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{Service: "x"}); err == nil {
		t.Fatal("a service that does not exist is healthy")
	}

	root.End(nil)
	agent.Flush()
	server.Flush()

	spans := received.Spans()
	if len(spans) != 5 {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}

	first := spans[0]
	if first.Name != "pod start" || first.Parent != "" || first.Attributes["k8s.pod.name"] != "web" ||
		!first.Began.Equal(began.Truncate(1)) {
		t.Errorf("the first span: %+v", first)
	}

	for _, s := range spans[1:] {
		parent := slices.IndexFunc(spans, func(p receiver.Span) bool { return p.ID == s.Parent })
		if s.Name != "Check" || s.Trace != first.Trace || parent < 0 ||
			s.Service == "server" && spans[parent].Service != "agent" {
			t.Errorf("%+v", s)
		}
	}

	failed := slices.IndexFunc(spans, func(s receiver.Span) bool { return s.Failure != "" })
	if failed < 0 || !strings.Contains(spans[failed].Failure, "unknown service") {
		t.Error("no span says how the second call failed")
	}
}

func TestWithoutAnEndpointNothingIsMade(t *testing.T) {
	p := provider(t, "", "agent", 1e6)
	if p != nil || p.ClientOptions() != nil || p.ServerOptions() != nil {
		t.Errorf("provider %v", p)
	}

	root := p.Root("pod start", time.Now())
	ctx := root.Under(t.Context())
	if ctx != t.Context() {
		t.Error("the context has changed")
	}

	below, span := trace.Begin(ctx, "step")
	if span != nil || below != ctx || trace.Parent(ctx) != "" {
		t.Errorf("span %v, parent %q", span, trace.Parent(ctx))
	}

	trace.Step(ctx, "step")(errors.New("x"))
	span.Add("step", time.Now(), time.Now())
	span.End(nil)
	root.End(nil)
	p.Flush()
}

func TestATraceThatIsNotASampleMakesNoSpanAnywhere(t *testing.T) {
	received, endpoint := listen(t)
	agent := provider(t, endpoint, "agent", 0)
	server := provider(t, endpoint, "server", 1e6)
	client := serve(t, server.ServerOptions(), agent.ClientOptions())

	root := agent.Root("pod start", time.Now())
	if _, err := client.Check(root.Under(t.Context()), &healthpb.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}

	root.End(nil)
	agent.Flush()
	server.Flush()
	if spans := received.Spans(); len(spans) > 0 {
		t.Errorf("%+v", spans)
	}
}

func TestAReceiverThatIsNotThereHoldsNothingUp(t *testing.T) {
	p := provider(t, "unix://"+filepath.Join(t.TempDir(), "nobody.sock"), "agent", 1e6)
	for range 5000 {
		p.Root("pod start", time.Now()).End(nil)
	}
	p.Flush()
}

func TestStepsOfAnotherProgramAreBelowTheSpan(t *testing.T) {
	received, endpoint := listen(t)
	p := provider(t, endpoint, "agent", 1e6)
	root := p.Root("pod start", time.Now())
	ctx, plugin := trace.Begin(root.Under(context.Background()), "CNI trivet-cni")
	const example = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	if parent := trace.Parent(ctx); len(parent) != len(example) {
		t.Errorf("TRACEPARENT %q", parent)
	}

	began := time.Now()
	plugin.Add("attach interface", began, began.Add(time.Millisecond))
	plugin.End(nil)
	root.End(nil)
	p.Flush()

	spans := received.Spans()
	if len(spans) != 3 || spans[2].Parent != spans[1].ID ||
		spans[2].Ended.Sub(spans[2].Began) != time.Millisecond {
		t.Errorf("%+v", spans)
	}
}
