package csiplugin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/trivet-node/trivet/internal/socket"
)

// Driver is a registered CSI driver: its node service and what that can do.
type Driver struct {
	Name string

	// Node calls the node service. The connection is the Registry's, which closes it when the driver is gone.
	Node csi.NodeClient

	capabilities map[csi.NodeServiceCapability_RPC_Type]bool
	conn         *grpc.ClientConn
}

// open connects to the driver and asks for its capabilities and node ID.
func open(ctx context.Context, name, endpoint string, opts ...grpc.DialOption) (*Driver, Info, error) {
	conn, err := socket.Dial(endpoint, opts...)
	if err != nil {
		return nil, Info{}, fmt.Errorf("CSI driver %s: %w", name, err)
	}

	d := &Driver{
		Name:         name,
		Node:         csi.NewNodeClient(conn),
		conn:         conn,
		capabilities: map[csi.NodeServiceCapability_RPC_Type]bool{},
	}

	about, err := d.describe(ctx)
	if err != nil {
		d.close()
		return nil, Info{}, fmt.Errorf("CSI driver %s: %w", name, err)
	}

	return d, about, nil
}

// describe reads the capabilities, and returns what the driver says about itself. A driver may still be
// starting, so the first call waits for its server.
func (d *Driver) describe(ctx context.Context) (Info, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()

	answer, err := d.Node.NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{}, grpc.WaitForReady(true))
	if err != nil {
		return Info{}, fmt.Errorf("NodeGetCapabilities: %w", err)
	}

	for _, c := range answer.Capabilities {
		d.capabilities[c.GetRpc().GetType()] = true
	}

	info, err := d.Node.NodeGetInfo(ctx, &csi.NodeGetInfoRequest{})
	if err != nil {
		return Info{}, fmt.Errorf("NodeGetInfo: %w", err)
	}
	if info.NodeId == "" {
		return Info{}, errors.New("NodeGetInfo: the node ID is empty")
	}

	return Info{
		Name:       d.Name,
		NodeID:     info.NodeId,
		MaxVolumes: info.MaxVolumesPerNode,
		Topology:   info.AccessibleTopology.GetSegments(),
	}, nil
}

// Can reports whether the driver's node service has the capability.
func (d *Driver) Can(c csi.NodeServiceCapability_RPC_Type) bool { return d.capabilities[c] }

func (d *Driver) close() { _ = d.conn.Close() }

// IsFinal reports whether a call of a driver that failed has left nothing behind, as the codes of CSI say
// (section "Error Scheme"): after the others the driver may still be at it, so that the call is to be undone.
func IsFinal(err error) bool {
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted:
		return false
	}
	return true
}
