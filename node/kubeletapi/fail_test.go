package kubeletapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestRuntimeWithTooManyStreamsIsTooManyRequests(t *testing.T) {
	w := httptest.NewRecorder()
	fail(w, fmt.Errorf("prepare exec in container c: %w", status.Error(codes.ResourceExhausted, "too many streams")))
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("answer %d, want %d", w.Code, http.StatusTooManyRequests)
	}
}
