package driver

import (
	"context"
	"errors"
	"fmt"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/trivet-node/trivet/csi/attach"
	"github.com/trivet-node/trivet/csi/volume"
)

// controllerService is the Controller service.
type controllerService struct {
	csi.UnimplementedControllerServer
	local
	limits Limits
	copies bool // see Config
}

// ControllerGetCapabilities says which optional calls of the controller service are served.
func (c *controllerService) ControllerGetCapabilities(
	context.Context,
	*csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	served := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_LIST_VOLUME_HEALTH,
		csi.ControllerServiceCapability_RPC_GET_VOLUME,
		csi.ControllerServiceCapability_RPC_MODIFY_VOLUME,
	}
	if c.copies {
		served = append(served,
			csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
			csi.ControllerServiceCapability_RPC_GET_SNAPSHOT,
			csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		)
	}
	if c.attached != nil {
		served = append(served,
			csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME,
			csi.ControllerServiceCapability_RPC_PUBLISH_READONLY,
			csi.ControllerServiceCapability_RPC_LIST_VOLUMES_PUBLISHED_NODES,
		)
	}

	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range served {
		rpc := &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{Type: rpc})
	}

	return resp, nil
}

// CreateVolume creates a volume on this node, or returns the one that an equal request created. A request for
// other nodes is RESOURCE_EXHAUSTED, after which provisioners choose another node.
func (c *controllerService) CreateVolume(
	ctx context.Context,
	req *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("volume name is missing")
	}
	w, err := parseCapabilities(req.GetVolumeCapabilities()...)
	if err != nil {
		return nil, err
	}

	p, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}

	limits, err := c.parseLimits(req.GetMutableParameters())
	if err != nil {
		return nil, err
	}

	if err := c.checkHere(req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}

	source, err := sourceOf(req.GetVolumeContentSource())
	if err != nil {
		return nil, err
	}

	v, err := c.volumes.Create(ctx, volume.Request{
		Name:     req.GetName(),
		Required: req.GetCapacityRange().GetRequiredBytes(),
		Limit:    req.GetCapacityRange().GetLimitBytes(),
		Backend:  p.backend,
		Access:   w.access,
		FSType:   w.fsType,
		NoCOW:    p.noCOW,
		Reserve:  p.reserve,
		Options:  w.options,
		Limits:   limits,
		Source:   source,

		Encryption: p.encryption,
	})
	if errors.Is(err, volume.ErrNotFound) && req.GetAccessibilityRequirements() != nil {
		return nil, fmt.Errorf("%w: node %s does not have it: %w", errElsewhere, c.node, err)
	}
	if err != nil {
		return nil, err
	}

	return &csi.CreateVolumeResponse{Volume: c.toCSI(v)}, nil
}

// DeleteVolume deletes a volume and its content. An ID that is not of this driver names no volume, and
// deleting that is success.
func (c *controllerService) DeleteVolume(
	ctx context.Context,
	req *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if volume.CheckID(req.GetVolumeId()) != nil || volume.IsSnapshotID(req.GetVolumeId()) {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if len(c.nodesOf(req.GetVolumeId())) > 0 {
		return nil, fmt.Errorf("%w: %s is attached to node %s", volume.ErrInUse, req.GetVolumeId(), c.node)
	}
	if err := c.volumes.Delete(ctx, req.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ControllerPublishVolume attaches a volume to this node, see package attach.
func (c *controllerService) ControllerPublishVolume(
	ctx context.Context,
	req *csi.ControllerPublishVolumeRequest,
) (*csi.ControllerPublishVolumeResponse, error) {
	if c.attached == nil {
		return c.UnimplementedControllerServer.ControllerPublishVolume(ctx, req)
	}
	if req.GetVolumeId() == "" || req.GetNodeId() == "" {
		return nil, invalid("volume id or node id is missing")
	}
	w, err := parseCapabilities(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}

	v, err := c.get(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if req.GetNodeId() != c.node {
		return nil, fmt.Errorf("%w: node %q: volume %s is on node %s",
			volume.ErrNotFound, req.GetNodeId(), v.ID, c.node)
	}
	if err := w.use(false).Check(v); err != nil {
		return nil, err
	}

	how := attach.How{ReadOnly: req.GetReadonly() || w.readOnly, SingleWriter: w.singleWriter}
	if err := c.attached.Attach(ctx, v.ID, how); err != nil {
		return nil, err
	}
	return &csi.ControllerPublishVolumeResponse{}, nil
}

// ControllerUnpublishVolume undoes ControllerPublishVolume. What is not attached is success.
func (c *controllerService) ControllerUnpublishVolume(
	ctx context.Context,
	req *csi.ControllerUnpublishVolumeRequest,
) (*csi.ControllerUnpublishVolumeResponse, error) {
	if c.attached == nil {
		return c.UnimplementedControllerServer.ControllerUnpublishVolume(ctx, req)
	}
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if node := req.GetNodeId(); node == "" || node == c.node {
		if err := c.attached.Detach(ctx, req.GetVolumeId()); err != nil {
			return nil, err
		}
	}
	return &csi.ControllerUnpublishVolumeResponse{}, nil
}

// ControllerGetVolume returns a volume.
func (c *controllerService) ControllerGetVolume(
	_ context.Context,
	req *csi.ControllerGetVolumeRequest,
) (*csi.ControllerGetVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	v, err := c.get(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeResponse{
		Volume: c.toCSI(v),
		Status: &csi.ControllerGetVolumeResponse_VolumeStatus{PublishedNodeIds: c.nodesOf(v.ID)},
	}, nil
}

// ValidateVolumeCapabilities reports whether an existing volume can be used with the capabilities; if not,
// the answer has a message in place of the confirmation.
func (c *controllerService) ValidateVolumeCapabilities(
	_ context.Context,
	req *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.GetVolumeId() == "" || len(req.GetVolumeCapabilities()) == 0 {
		return nil, invalid("volume id or capabilities are missing")
	}

	v, err := c.get(req.GetVolumeId())
	if err != nil {
		return nil, err
	}

	w, err := parseCapabilities(req.GetVolumeCapabilities()...)
	if err == nil {
		_, err = parseParameters(req.GetParameters())
	}
	if err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}

	if w.access != v.Access || w.fsType != "" && w.fsType != v.FSType {
		return &csi.ValidateVolumeCapabilitiesResponse{
			Message: fmt.Sprintf("volume has %s access and file system %q", v.Access, v.FSType),
		}, nil
	}

	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext:      req.GetVolumeContext(),
			VolumeCapabilities: req.GetVolumeCapabilities(),
			Parameters:         req.GetParameters(),
		},
	}, nil
}

// ListVolumes returns a page of the volumes in the order of their IDs. The token of the next page has the
// last ID of this one, so that volumes may be created and deleted between two pages.
func (c *controllerService) ListVolumes(
	_ context.Context,
	req *csi.ListVolumesRequest,
) (*csi.ListVolumesResponse, error) {
	page, err := parsePage(req.GetMaxEntries(), req.GetStartingToken())
	if err != nil {
		return nil, err
	}

	found := c.volumes.List(page.after, page.ask())
	resp := &csi.ListVolumesResponse{}
	found, resp.NextToken = page.cut(found)
	resp.Entries = make([]*csi.ListVolumesResponse_Entry, len(found))
	common, unattached := map[string][]byte{}, &csi.ListVolumesResponse_VolumeStatus{}
	for i, v := range found {
		one := &csi.Volume{VolumeId: v.ID, CapacityBytes: v.Size, ContentSource: sourceToCSI(v.Source)}
		if common[v.Backend] == nil {
			if common[v.Backend], err = c.commonOf(v.Backend); err != nil {
				return nil, err
			}
		}
		one.ProtoReflect().SetUnknown(common[v.Backend])

		status := unattached
		if nodes := c.nodesOf(v.ID); len(nodes) > 0 {
			status = &csi.ListVolumesResponse_VolumeStatus{PublishedNodeIds: nodes}
		}
		resp.Entries[i] = &csi.ListVolumesResponse_Entry{Volume: one, Status: status}
	}

	return resp, nil
}

// GetCapacity returns how large the next volume with these parameters and capabilities may be, in bytes; 0
// for other nodes.
func (c *controllerService) GetCapacity(
	_ context.Context,
	req *csi.GetCapacityRequest,
) (*csi.GetCapacityResponse, error) {
	p, err := parseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}

	w := wanted{access: volume.Filesystem}
	if len(req.GetVolumeCapabilities()) > 0 {
		if w, err = parseCapabilities(req.GetVolumeCapabilities()...); err != nil {
			return nil, err
		}
	}

	if req.GetAccessibleTopology() != nil && !c.here(req.GetAccessibleTopology()) {
		return &csi.GetCapacityResponse{}, nil
	}

	free, err := c.volumes.Available(volume.Request{
		Backend: p.backend,
		Access:  w.access,
		FSType:  w.fsType,
		NoCOW:   p.noCOW,
		Reserve: p.reserve,
		Options: w.options,

		Encryption: p.encryption,
	})
	if err != nil {
		return nil, err
	}

	return &csi.GetCapacityResponse{AvailableCapacity: free, MaximumVolumeSize: wrapperspb.Int64(free)}, nil
}

// ControllerExpandVolume makes a volume larger. Volumes never shrink: one that is large enough stays as it
// is.
func (c *controllerService) ControllerExpandVolume(
	ctx context.Context,
	req *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetCapacityRange() == nil {
		return nil, invalid("volume id or capacity range is missing")
	}
	if _, err := c.get(req.GetVolumeId()); err != nil {
		return nil, err
	}

	required, limit := req.GetCapacityRange().GetRequiredBytes(), req.GetCapacityRange().GetLimitBytes()
	v, err := c.volumes.Grow(ctx, req.GetVolumeId(), required, limit)
	if err != nil {
		return nil, err
	}

	return &csi.ControllerExpandVolumeResponse{
		CapacityBytes:         v.Size,
		NodeExpansionRequired: c.publisher.GrowsStaged(v),
	}, nil
}

// ControllerModifyVolume gives a volume the limits that the mutable parameters are, in place of those that it
// has. Where it is in use they are in force when the call returns.
func (c *controllerService) ControllerModifyVolume(
	ctx context.Context,
	req *csi.ControllerModifyVolumeRequest,
) (*csi.ControllerModifyVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if _, err := c.get(req.GetVolumeId()); err != nil {
		return nil, err
	}

	limits, err := c.parseLimits(req.GetMutableParameters())
	if err != nil {
		return nil, err
	}

	if _, err := c.volumes.Modify(ctx, req.GetVolumeId(), limits); err != nil {
		return nil, err
	}
	if err := c.limits.Enforce(ctx, req.GetVolumeId()); err != nil {
		return nil, err
	}

	return &csi.ControllerModifyVolumeResponse{}, nil
}

// parseLimits reads mutable parameters, and refuses limits that could not be in force.
func (c *controllerService) parseLimits(in map[string]string) (volume.Limits, error) {
	l, err := parseLimits(in)
	if err != nil {
		return volume.Limits{}, err
	}
	return l, c.limits.Check(l)
}
