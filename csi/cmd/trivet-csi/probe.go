package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/internal/socket"
)

// probeTimeout bounds the answer of a driver that is asked by --probe.
const probeTimeout = 4 * time.Second

// probe asks the driver that serves on a socket whether it is ready, and fails if it is not. kubelet cannot
// ask by itself: its gRPC probes are for TCP and another service.
func probe(ctx context.Context, endpoint string) (err error) {
	conn, err := socket.Dial(endpoint)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()

	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()

	resp, err := csi.NewIdentityClient(conn).Probe(ctx, &csi.ProbeRequest{})
	if err != nil {
		return fmt.Errorf("probe the driver at %s: %w", endpoint, err)
	}
	if ready := resp.GetReady(); ready != nil && !ready.GetValue() {
		return fmt.Errorf("the driver at %s is not ready", endpoint)
	}

	return nil
}
