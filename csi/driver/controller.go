package driver

import (
	"context"
	"fmt"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/trivet-node/trivet/csi/volume"
)

// ControllerGetCapabilities implements csi.ControllerServer.
func (d *Driver) ControllerGetCapabilities(
	context.Context,
	*csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	resp := &csi.ControllerGetCapabilitiesResponse{}
	for _, t := range []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_GET_CAPACITY,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.ControllerServiceCapability_RPC_GET_VOLUME_HEALTH,
	} {
		resp.Capabilities = append(resp.Capabilities, &csi.ControllerServiceCapability{Type: &csi.ControllerServiceCapability_Rpc{
			Rpc: &csi.ControllerServiceCapability_RPC{Type: t}}})
	}

	return resp, nil
}

// CreateVolume implements csi.ControllerServer.
func (d *Driver) CreateVolume(
	ctx context.Context,
	req *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	if req.GetName() == "" {
		return nil, invalid("volume name is missing")
	}
	if req.GetVolumeContentSource() != nil {
		return nil, invalid("volume content source: snapshots and clones are not served")
	}
	if len(req.GetMutableParameters()) > 0 {
		return nil, invalid("mutable parameters: the driver has none")
	}

	w, err := parseCapabilities(req.GetVolumeCapabilities()...)
	if err != nil {
		return nil, err
	}

	p, err := ParseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}

	if requisite := req.GetAccessibilityRequirements().GetRequisite(); len(requisite) > 0 &&
		!slices.ContainsFunc(requisite, d.here) {
		return nil, fmt.Errorf("%w: volumes are made on node %s, which is not among the requisite topologies",
			volume.ErrFull, d.cfg.NodeID)
	}

	v, err := d.cfg.Volumes.Create(ctx, volume.Request{
		Name:     req.GetName(),
		Required: req.GetCapacityRange().GetRequiredBytes(),
		Limit:    req.GetCapacityRange().GetLimitBytes(),
		Backend:  p.Backend,
		Access:   w.access,
		FSType:   w.fsType,
		NoCOW:    p.NoCOW,
		Options:  w.options,
	})
	if err != nil {
		return nil, err
	}

	return &csi.CreateVolumeResponse{Volume: d.toCSI(v)}, nil
}

func (d *Driver) toCSI(v volume.Volume) *csi.Volume {
	return &csi.Volume{
		VolumeId:           v.ID,
		CapacityBytes:      v.Size,
		AccessibleTopology: []*csi.Topology{d.topology()},
		VolumeContext:      map[string]string{"backend": v.Backend},
	}
}

// DeleteVolume implements csi.ControllerServer.
func (d *Driver) DeleteVolume(
	ctx context.Context,
	req *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	if req.GetVolumeId() == "" {
		return nil, invalid("volume id is missing")
	}
	if volume.CheckID(req.GetVolumeId()) != nil {
		// none of ours, so there is nothing to delete
		return &csi.DeleteVolumeResponse{}, nil
	}
	if err := d.cfg.Volumes.Delete(ctx, req.GetVolumeId()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeResponse{}, nil
}

// ValidateVolumeCapabilities implements csi.ControllerServer.
func (d *Driver) ValidateVolumeCapabilities(
	_ context.Context,
	req *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	if req.GetVolumeId() == "" || len(req.GetVolumeCapabilities()) == 0 {
		return nil, invalid("volume id or capabilities are missing")
	}

	v, err := d.get(req.GetVolumeId())
	if err != nil {
		return nil, err
	}

	w, err := parseCapabilities(req.GetVolumeCapabilities()...)
	if err == nil {
		_, err = ParseParameters(req.GetParameters())
	}
	if err != nil {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: err.Error()}, nil
	}

	if w.access != v.Access || w.fsType != "" && w.fsType != v.FSType {
		return &csi.ValidateVolumeCapabilitiesResponse{
			Message: fmt.Sprintf("volume has %s access and file system %q", v.Access, v.FSType),
		}, nil
	}

	return &csi.ValidateVolumeCapabilitiesResponse{Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
		VolumeContext: req.GetVolumeContext(), VolumeCapabilities: req.GetVolumeCapabilities(), Parameters: req.GetParameters()}}, nil
}

// get returns a volume; an ID that is not ours names none.
func (d *Driver) get(id string) (volume.Volume, error) {
	if volume.CheckID(id) != nil {
		return volume.Volume{}, fmt.Errorf("%w: %q", volume.ErrNotFound, id)
	}
	return d.cfg.Volumes.Get(id)
}

// ListVolumes implements csi.ControllerServer.
func (d *Driver) ListVolumes(
	_ context.Context,
	req *csi.ListVolumesRequest,
) (*csi.ListVolumesResponse, error) {
	if req.GetMaxEntries() < 0 {
		return nil, invalid("max entries is %d", req.GetMaxEntries())
	}

	after, err := parseToken(req.GetStartingToken())
	if err != nil {
		return nil, err
	}

	limit := int(req.GetMaxEntries())
	more := limit
	if limit > 0 {
		// one more than asked for reports whether there is a next page
		more++
	}

	found := d.cfg.Volumes.List(after, more)
	resp := &csi.ListVolumesResponse{}
	if limit > 0 && len(found) > limit {
		found = found[:limit]
		resp.NextToken = tokenPrefix + found[limit-1].ID
	}

	for _, v := range found {
		resp.Entries = append(resp.Entries, &csi.ListVolumesResponse_Entry{Volume: d.toCSI(v)})
	}

	return resp, nil
}

// GetCapacity implements csi.ControllerServer.
func (d *Driver) GetCapacity(
	_ context.Context,
	req *csi.GetCapacityRequest,
) (*csi.GetCapacityResponse, error) {
	p, err := ParseParameters(req.GetParameters())
	if err != nil {
		return nil, err
	}

	w := wanted{access: volume.Filesystem}
	if len(req.GetVolumeCapabilities()) > 0 {
		if w, err = parseCapabilities(req.GetVolumeCapabilities()...); err != nil {
			return nil, err
		}
	}

	if req.GetAccessibleTopology() != nil && !d.here(req.GetAccessibleTopology()) {
		return &csi.GetCapacityResponse{}, nil
	}

	free, err := d.cfg.Volumes.Available(volume.Request{
		Backend: p.Backend,
		Access:  w.access,
		FSType:  w.fsType,
		NoCOW:   p.NoCOW,
		Options: w.options,
	})
	if err != nil {
		return nil, err
	}

	return &csi.GetCapacityResponse{AvailableCapacity: free, MaximumVolumeSize: wrapperspb.Int64(free)}, nil
}

// ControllerExpandVolume implements csi.ControllerServer.
func (d *Driver) ControllerExpandVolume(
	ctx context.Context,
	req *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetCapacityRange() == nil {
		return nil, invalid("volume id or capacity range is missing")
	}
	if _, err := d.get(req.GetVolumeId()); err != nil {
		return nil, err
	}

	v, nodeStep, err := d.cfg.Volumes.Grow(
		ctx,
		req.GetVolumeId(),
		req.GetCapacityRange().GetRequiredBytes(),
		req.GetCapacityRange().GetLimitBytes(),
	)
	if err != nil {
		return nil, err
	}

	return &csi.ControllerExpandVolumeResponse{CapacityBytes: v.Size, NodeExpansionRequired: nodeStep}, nil
}
