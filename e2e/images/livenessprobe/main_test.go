package main

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type fakeDriver struct {
	csi.IdentityClient
	ready *wrapperspb.BoolValue
	err   error
}

func (f fakeDriver) Probe(
	context.Context,
	*csi.ProbeRequest,
	...grpc.CallOption,
) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: f.ready}, f.err
}

func TestHealthIsWhatTheDriverSays(t *testing.T) {
	for name, c := range map[string]struct {
		driver fakeDriver
		code   int
	}{
		"ready":       {fakeDriver{ready: wrapperspb.Bool(true)}, http.StatusOK},
		"says not":    {fakeDriver{}, http.StatusOK},
		"not ready":   {fakeDriver{ready: wrapperspb.Bool(false)}, http.StatusInternalServerError},
		"not serving": {fakeDriver{err: errors.New("unavailable")}, http.StatusInternalServerError},
	} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, "/healthz", nil)
		healthz(c.driver, time.Minute).ServeHTTP(answer, request)
		if answer.Code != c.code {
			t.Errorf("%s: code %d, want %d", name, answer.Code, c.code)
		}
	}
}
