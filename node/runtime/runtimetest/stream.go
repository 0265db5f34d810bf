package runtimetest

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Streams makes the URLs of streams (streaming.Server of k8s.io/cri-streaming).
type Streams interface {
	GetExec(*cri.ExecRequest) (*cri.ExecResponse, error)
	GetAttach(*cri.AttachRequest) (*cri.AttachResponse, error)
	GetPortForward(*cri.PortForwardRequest) (*cri.PortForwardResponse, error)
}

// Stream makes the runtime offer streams.
func (s *Server) Stream(streams Streams) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = streams
}

// urls returns what makes the URLs of streams, or an error if nothing does.
func (s *Server) urls() (Streams, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.streams == nil {
		return nil, status.Error(codes.Unimplemented, "no streams")
	}
	return s.streams, nil
}

// Exec offers the streams of a command.
func (s service) Exec(_ context.Context, r *cri.ExecRequest) (*cri.ExecResponse, error) {
	streams, err := s.urls()
	if err != nil {
		return nil, err
	}
	return streams.GetExec(r)
}

// Attach offers the streams of a container.
func (s service) Attach(_ context.Context, r *cri.AttachRequest) (*cri.AttachResponse, error) {
	streams, err := s.urls()
	if err != nil {
		return nil, err
	}
	return streams.GetAttach(r)
}

// PortForward offers connections to a sandbox.
func (s service) PortForward(_ context.Context, r *cri.PortForwardRequest) (*cri.PortForwardResponse, error) {
	streams, err := s.urls()
	if err != nil {
		return nil, err
	}
	return streams.GetPortForward(r)
}

// ExecSync runs the commands "true", which writes to both streams, and "false", which fails with code 1. All
// other commands succeed without output.
func (s service) ExecSync(_ context.Context, r *cri.ExecSyncRequest) (*cri.ExecSyncResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if err := s.note("ExecSync", r.Cmd[0]); err != nil {
		return nil, err
	}

	switch r.Cmd[0] {
	case "true":
		return &cri.ExecSyncResponse{Stdout: []byte("out"), Stderr: []byte("err")}, nil
	case "false":
		return &cri.ExecSyncResponse{ExitCode: 1}, nil
	}

	return &cri.ExecSyncResponse{}, nil
}
