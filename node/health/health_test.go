package health_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/trivet-node/trivet/node/health"
)

// ask asks for a path and returns the status and the text.
func ask(c *health.Checks, path string) (int, string) {
	mux := http.NewServeMux()
	c.Register(mux)
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

func TestHealthIsAnsweredAsKubeletDoes(t *testing.T) {
	var sick atomic.Bool
	c := &health.Checks{}
	c.Add("syncloop", func() error {
		if sick.Load() {
			return errors.New("it took longer than expected")
		}
		return nil
	})

	for _, step := range []struct {
		sick bool
		path string
		code int
		want string
	}{
		{false, "/healthz", 200, "ok"},
		{false, "/healthz/syncloop", 200, "ok"},
		{false, "/healthz/ping", 200, "ok"},
		{false, "/healthz/other", 404, "404 page not found\n"},
		{false, "/healthz?verbose", 200, "[+]ping ok\n[+]log ok\n[+]syncloop ok\nhealthz check passed\n"},
		{true, "/healthz", 500,
			"[+]ping ok\n[+]log ok\n[-]syncloop failed: reason withheld\nhealthz check failed\n"},
		{true, "/healthz/syncloop", 500, "internal server error: it took longer than expected\n"},
		{true, "/healthz/ping", 200, "ok"},
		{true, "/healthz?exclude=syncloop", 200, "ok"},
	} {
		sick.Store(step.sick)
		if code, got := ask(c, step.path); code != step.code || got != step.want {
			t.Errorf("%s: %d %q, want %d %q", step.path, code, got, step.code, step.want)
		}
	}

	want := []health.Counts{
		{Name: "ping", Successes: 6},
		{Name: "log", Successes: 4},
		{Name: "syncloop", Failed: true, Successes: 3, Failures: 2},
	}
	if diff := cmp.Diff(want, c.Counts()); diff != "" {
		t.Error(diff)
	}
}

func TestALoopThatStallsIsNotWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p health.Pulse
		if err := p.Check(); err != nil {
			t.Errorf("before it begins: %v", err)
		}

		var hang atomic.Bool
		turn := func(ctx context.Context) error {
			if hang.Load() {
				<-ctx.Done()
			}
			return ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.Follow(ctx, turn)

		time.Sleep(time.Hour)
		if err := p.Check(); err != nil {
			t.Errorf("while it goes round: %v", err)
		}

		hang.Store(true)
		time.Sleep(health.Stall + time.Minute)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), "longer than expected") {
			t.Errorf("after it has stalled: %v", err)
		}
		cancel()
		synctest.Wait()
	})
}
