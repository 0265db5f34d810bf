package progress_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/trivet-node/trivet/internal/kube/progress"
	"github.com/trivet-node/trivet/internal/retry"
)

// slow sends so many parts with pauses between, and then nothing if it is stuck.
type slow struct {
	parts int
	pause time.Duration
	stuck bool
}

func (s slow) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for range s.parts {
		fmt.Fprint(w, "part ")
		_ = http.NewResponseController(w).Flush()
		if retry.Sleep(r.Context(), s.pause) != nil {
			return
		}
	}
	if s.stuck {
		<-r.Context().Done()
	}
}

// read reads an answer whole, with a bound.
func read(t *testing.T, server slow, pause time.Duration, heard func()) (string, error) {
	t.Helper()
	front := httptest.NewServer(server)
	t.Cleanup(front.Close)

	ctx, end := progress.Bound(t.Context(), pause, heard)
	defer end()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}

	client := &http.Client{Transport: progress.Transport(http.DefaultTransport)}
	response, err := client.Do(request)
	if err != nil {
		return "", errors.Join(err, context.Cause(ctx))
	}
	defer response.Body.Close()

	all, err := io.ReadAll(response.Body)
	if err != nil {
		err = errors.Join(err, context.Cause(ctx))
	}
	return string(all), err
}

func TestAnAnswerMayTakeLongerThanItsPauses(t *testing.T) {
	var heard atomic.Int64
	got, err := read(t, slow{parts: 8, pause: 100 * time.Millisecond}, 500*time.Millisecond,
		func() { heard.Add(1) })
	if err != nil || len(got) != 8*len("part ") {
		t.Errorf("read %q, %v", got, err)
	}
	if heard.Load() < 8 {
		t.Errorf("heard %d times", heard.Load())
	}
}

func TestAnAnswerThatStopsIsGivenUp(t *testing.T) {
	for name, server := range map[string]slow{
		"before it begins": {stuck: true},
		"in the middle":    {parts: 2, stuck: true},
	} {
		if got, err := read(t, server, 200*time.Millisecond, nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: read %q, %v", name, got, err)
		}
	}
}
