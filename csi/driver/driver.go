// Package driver is the CSI 1.13 adapter of csi/volume: it checks requests, translates them, and chooses the
// gRPC code of each error (codes.go). One process serves Identity, Controller and Node, for the volumes of
// the node it runs on.
package driver

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/csi/volume"
)

// Names that Kubernetes objects refer to.
const (
	Name        = "csi.trivet.dev"
	TopologyKey = "topology.csi.trivet.dev/node"
)

// Config of a Driver.
type Config struct {
	NodeID  string // the node's name
	Version string
	Volumes *volume.Service
	Log     *slog.Logger
}

// Driver serves the three CSI services.
type Driver struct {
	csi.UnimplementedIdentityServer
	csi.UnimplementedControllerServer
	csi.UnimplementedNodeServer
	cfg Config
}

// New checks the configuration.
func New(cfg Config) (*Driver, error) {
	if cfg.NodeID == "" || len(cfg.NodeID) > 63 {
		return nil, errors.New("node name must have 1 to 63 characters: it is the value of a topology label")
	}
	return &Driver{cfg: cfg}, nil
}

// Server returns a gRPC server with the three services.
func (d *Driver) Server() *grpc.Server {
	s := grpc.NewServer(grpc.UnaryInterceptor(d.observe))
	csi.RegisterIdentityServer(s, d)
	csi.RegisterControllerServer(s, d)
	csi.RegisterNodeServer(s, d)
	return s
}

// observe turns domain errors into gRPC ones and logs each call once.
func (d *Driver) observe(
	ctx context.Context,
	req any,
	info *grpc.UnaryServerInfo,
	next grpc.UnaryHandler,
) (any, error) {
	began := time.Now()
	resp, err := next(ctx, req)
	if err = toStatus(err); err != nil {
		d.cfg.Log.Warn("call fails",
			"method", info.FullMethod, "code", status.Code(err), "duration", time.Since(began), "err", err)
		return nil, err
	}
	d.cfg.Log.Debug("call", "method", info.FullMethod, "duration", time.Since(began))
	return resp, nil
}

func (d *Driver) topology() *csi.Topology {
	return &csi.Topology{Segments: map[string]string{TopologyKey: d.cfg.NodeID}}
}

// here reports whether a topology includes this node. Segments of other drivers are not ours to judge.
func (d *Driver) here(t *csi.Topology) bool {
	node, ok := t.GetSegments()[TopologyKey]
	return !ok || node == d.cfg.NodeID
}
