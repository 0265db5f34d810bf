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
	refused := status.Error(codes.ResourceExhausted, "too many streams")
	fail(w, fmt.Errorf("prepare exec in container c: %w", refused))
	if w.Code != http.StatusTooManyRequests {
		t.Errorf("answer %d, want %d", w.Code, http.StatusTooManyRequests)
	}
}
