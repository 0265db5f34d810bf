package streaming

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func newServer(t *testing.T) *Server {
	t.Helper()
	s, err := New(Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.listener.Close() })
	return s
}

func execURL(t *testing.T, s *Server, container string) string {
	t.Helper()
	resp, err := s.Exec(&runtimeapi.ExecRequest{ContainerId: container, Cmd: []string{"true"}, Stdout: true})
	if err != nil {
		t.Fatalf("exec in container %s: %v", container, err)
	}
	return resp.Url
}

func TestUnopenedStreamsOfOneContainerAreBounded(t *testing.T) {
	s := newServer(t)
	for range maxTokensEach {
		execURL(t, s, "many")
	}

	_, err := s.Attach(&runtimeapi.AttachRequest{ContainerId: "many", Stdout: true})
	if !errors.Is(err, ErrTooManyStreams) || !strings.Contains(err.Error(), "container many") {
		t.Errorf("error %v does not name the container and the cause", err)
	}

	execURL(t, s, "other")
	_, err = s.PortForward(&runtimeapi.PortForwardRequest{PodSandboxId: "many", Port: []int32{80}})
	if err != nil {
		t.Errorf("a pod's ports are refused: %v", err)
	}
}

func TestUnopenedStreamsOfManyContainersRefuseNobody(t *testing.T) {
	s := newServer(t)
	first := execURL(t, s, "first")
	for i := range 1200 {
		execURL(t, s, fmt.Sprint("c", i/50))
	}

	last := execURL(t, s, "last")

	open := func(url string) int {
		r := httptest.NewRequest(http.MethodPost, url, nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		return w.Code
	}
	if code := open(first); code != http.StatusNotFound {
		t.Errorf("the oldest URL answers %d, want %d", code, http.StatusNotFound)
	}

	// it is known, and asked for without an upgrade
	if code := open(last); code != http.StatusBadRequest {
		t.Errorf("the newest URL answers %d, want %d", code, http.StatusBadRequest)
	}
}
