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

// probe asks the driver that serves on a socket whether it is ready, and for a volume, and fails if it is not
// or does not answer. The volume comes from what is known in memory, whose locks are never held while the
// disk is waited for: a slow disk is no failure, a store that hangs is one. kubelet cannot ask by itself: its
// gRPC probes are for TCP and another service.
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

	first := &csi.ListVolumesRequest{MaxEntries: 1}
	if _, err := csi.NewControllerClient(conn).ListVolumes(ctx, first); err != nil {
		return fmt.Errorf("list volumes of the driver at %s: %w", endpoint, err)
	}

	return nil
}
