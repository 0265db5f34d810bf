package main

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/trivet-node/trivet/internal/socket"
	"github.com/trivet-node/trivet/internal/testenv"
)

// identity is a driver that is ready or not.
type identity struct {
	csi.UnimplementedIdentityServer
	ready bool
}

func (i identity) Probe(context.Context, *csi.ProbeRequest) (*csi.ProbeResponse, error) {
	return &csi.ProbeResponse{Ready: wrapperspb.Bool(i.ready)}, nil
}

func TestProbeFailsUnlessTheDriverIsReady(t *testing.T) {
	for _, ready := range []bool{true, false} {
		path := filepath.Join(testenv.ShortDir(t), "csi.sock")
		l, err := socket.Listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		server := grpc.NewServer()
		csi.RegisterIdentityServer(server, identity{ready: ready})
		done := make(chan error, 1)
		go func() { done <- server.Serve(l) }()

		if err := probe(t.Context(), path); (err == nil) != ready {
			t.Errorf("ready %t: %v", ready, err)
		}
		server.Stop()
		<-done
		if err := probe(t.Context(), path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("of a driver that has ended: %v", err)
		}
	}
}
