package metric

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
)

func TestCallsAreCountedByMethodAndCode(t *testing.T) {
	calls := NewCalls("x_call", "calls")
	calls.Observe("/package.Service/Do", codes.OK, time.Millisecond)
	calls.Observe("/package.Service/Do", codes.NotFound, time.Second)

	r := prometheus.NewRegistry()
	r.MustRegister(calls)
	got := text(t, scrape(Handler(r, slog.Default())).Body)
	for _, want := range []string{
		`x_calls_total{code="OK",method="Do"} 1`,
		`x_calls_total{code="NotFound",method="Do"} 1`,
		`x_call_duration_seconds_count{method="Do"} 2`,
	} {
		if !strings.Contains(got, "\n"+want+"\n") {
			t.Errorf("no %s in\n%s", want, got)
		}
	}
}

func BenchmarkObserve(b *testing.B) {
	calls := NewCalls("x_call", "calls")
	b.ReportAllocs()
	for b.Loop() {
		calls.Observe("/runtime.v1.RuntimeService/CreateContainer", codes.OK, time.Millisecond)
	}
}
