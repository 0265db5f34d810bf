package main

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/trivet-node/trivet/csi/driver"
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

// volumes are a store that answers, or hangs.
type volumes struct {
	csi.UnimplementedControllerServer
	hang func() // is called when it begins to hang; nil: it does not
}

func (v volumes) ListVolumes(
	ctx context.Context, r *csi.ListVolumesRequest,
) (*csi.ListVolumesResponse, error) {
	if v.hang != nil {
		v.hang()
		<-ctx.Done()
	}
	if r.GetMaxEntries() != 1 {
		return nil, status.Error(codes.InvalidArgument, "more is asked for than one volume")
	}
	return &csi.ListVolumesResponse{}, ctx.Err()
}

func TestProbeFailsWhenTheStoreHangs(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	path := serveProbed(t, identity{ready: true}, volumes{hang: cancel})
	if err := probe(ctx, path); err == nil || !strings.Contains(err.Error(), "list volumes") {
		t.Errorf("of a store that hangs: %v", err)
	}
}

// serveProbed serves a driver until the test ends, and returns its socket.
func serveProbed(t *testing.T, i identity, v volumes) string {
	t.Helper()
	path := filepath.Join(testenv.ShortDir(t), "csi.sock")
	l, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	server := grpc.NewServer()
	csi.RegisterIdentityServer(server, i)
	csi.RegisterControllerServer(server, v)
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return path
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
		csi.RegisterControllerServer(server, volumes{})
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

// The controllers that are built in are told from a sidecar that does the same.
func TestDriverTellsItsControllersFromOthers(t *testing.T) {
	all, err := parseControllers("all")
	if err != nil {
		t.Fatal(err)
	}
	d, err := driver.New(driver.Config{
		NodeID: "a",
		Own:    (&controllers{chosen: all}).calls(),
		Log:    slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(testenv.ShortDir(t), "csi.sock")
	l, err := socket.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	server, done := d.Server(), make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })

	own, err := dialAsController(path)
	if err != nil {
		t.Fatal(err)
	}
	sidecar, err := socket.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { own.Close(); sidecar.Close() })

	for _, c := range []struct {
		conn *grpc.ClientConn
		want string
	}{{own, ""}, {sidecar, "CreateSnapshot"}} {
		// Each is refused before anything is done.
		_, err := csi.NewControllerClient(c.conn).CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{})
		if status.Code(err) != codes.InvalidArgument {
			t.Error(err)
		}
		if got := calledByOthers(t.Context(), path); got != c.want {
			t.Errorf("called by others: %q, want %q", got, c.want)
		}
	}
}
