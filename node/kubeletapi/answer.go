package kubeletapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/trivet-node/trivet/node/runtime"
)

// handler answers a request, or returns an error that is the answer.
type handler func(w http.ResponseWriter, r *http.Request) error

// ServeHTTP answers with the handler's error if it returns one.
func (h handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := h(w, r); err != nil {
		http.Error(w, err.Error(), codeOf(err))
	}
}

// httpError is an answer that is an error.
type httpError struct {
	code int
	text string
}

func (e *httpError) Error() string { return e.text }

func notFound(format string, args ...any) error {
	return &httpError{http.StatusNotFound, fmt.Sprintf(format, args...)}
}

func badRequest(format string, args ...any) error {
	return &httpError{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// codeOf returns the status code of an error.
func codeOf(err error) int {
	if e, ok := errors.AsType[*httpError](err); ok {
		return e.code
	}
	if errors.Is(err, runtime.ErrTooManyStreams) {
		return http.StatusTooManyRequests
	}
	return http.StatusInternalServerError
}

func writeJSON(w http.ResponseWriter, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
	return nil
}
