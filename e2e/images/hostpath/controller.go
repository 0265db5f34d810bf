package main

import (
	"context"
	"crypto/rand"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maxSize is the largest size of a volume, in bytes, and minSize the size without a wish.
const (
	maxSize = 1 << 40
	minSize = 1 << 20
)

// ControllerGetCapabilities names the calls.
func (d controller) ControllerGetCapabilities(
	context.Context, *csi.ControllerGetCapabilitiesRequest,
) (*csi.ControllerGetCapabilitiesResponse, error) {
	kinds := []csi.ControllerServiceCapability_RPC_Type{
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
		csi.ControllerServiceCapability_RPC_LIST_VOLUMES,
		csi.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
		csi.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
		csi.ControllerServiceCapability_RPC_CLONE_VOLUME,
		csi.ControllerServiceCapability_RPC_EXPAND_VOLUME,
		csi.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	}
	if d.modify {
		kinds = append(kinds, csi.ControllerServiceCapability_RPC_MODIFY_VOLUME)
	}

	if d.attach {
		kinds = append(kinds, csi.ControllerServiceCapability_RPC_PUBLISH_UNPUBLISH_VOLUME)
	}

	answer := &csi.ControllerGetCapabilitiesResponse{}
	for _, kind := range kinds {
		answer.Capabilities = append(answer.Capabilities, &csi.ControllerServiceCapability{
			Type: &csi.ControllerServiceCapability_Rpc{Rpc: &csi.ControllerServiceCapability_RPC{Type: kind}},
		})
	}

	return answer, nil
}

// blockWanted reports whether capabilities want a block volume; all of them must want the same.
func blockWanted(capabilities []*csi.VolumeCapability) (block bool, err error) {
	if len(capabilities) == 0 {
		return false, status.Error(codes.InvalidArgument, "the request has no volume capabilities")
	}

	var mount bool
	for _, c := range capabilities {
		block = block || c.GetBlock() != nil
		mount = mount || c.GetMount() != nil
	}

	if block == mount {
		return false, status.Error(
			codes.InvalidArgument,
			"a volume is either a block device or a file system",
		)
	}

	return block, nil
}

// sizeWanted is the size for a range.
func sizeWanted(wanted *csi.CapacityRange) (int64, error) {
	size := max(wanted.GetRequiredBytes(), minSize)
	if limit := wanted.GetLimitBytes(); size > maxSize || limit > 0 && size > limit {
		return 0, status.Errorf(codes.OutOfRange, "size %d is too large", size)
	}
	return size, nil
}

// CreateVolume makes a volume of a name once.
func (d controller) CreateVolume(
	_ context.Context,
	r *csi.CreateVolumeRequest,
) (*csi.CreateVolumeResponse, error) {
	if r.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no name")
	}

	block, err := blockWanted(r.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}

	size, err := sizeWanted(r.GetCapacityRange())
	if err != nil {
		return nil, err
	}

	if err := d.acceptsParameters(r.GetMutableParameters()); err != nil {
		return nil, err
	}

	v := &volume{
		ID:       strings.ToLower(rand.Text()),
		Name:     r.GetName(),
		Size:     size,
		Block:    block,
		Modified: r.GetMutableParameters(),
		Snapshot: r.GetVolumeContentSource().GetSnapshot().GetSnapshotId(),
		Source:   r.GetVolumeContentSource().GetVolume().GetVolumeId(),
	}
	if there := d.store.volumeNamed(v.Name); there != nil {
		return d.sameAs(there, v, r)
	}

	if err := d.fitsSource(v); err != nil {
		return nil, err
	}
	if err := d.store.create(v, v.Snapshot+v.Source); err != nil {
		return nil, err
	}

	return d.created(v, r), nil
}

// sameAs answers with the volume that has the name already, if it is what is wanted.
func (d controller) sameAs(there, v *volume, r *csi.CreateVolumeRequest) (*csi.CreateVolumeResponse, error) {
	limit := r.GetCapacityRange().GetLimitBytes()
	fits := there.Size >= v.Size && (limit == 0 || there.Size <= limit)
	if !fits || there.Block != v.Block || there.Snapshot != v.Snapshot || there.Source != v.Source {
		return nil, status.Errorf(codes.AlreadyExists, "volume %s is there, and another one", v.Name)
	}
	return d.created(there, r), nil
}

func (d controller) created(v *volume, r *csi.CreateVolumeRequest) *csi.CreateVolumeResponse {
	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           v.ID,
		CapacityBytes:      v.Size,
		VolumeContext:      r.GetParameters(),
		ContentSource:      r.GetVolumeContentSource(),
		AccessibleTopology: []*csi.Topology{d.topology()},
	}}
}

// fitsSource checks that what the volume is made of is there, of the same kind, and no larger.
func (d controller) fitsSource(v *volume) error {
	size, block := int64(0), v.Block
	if v.Snapshot != "" {
		from, ok := d.store.Snapshots[v.Snapshot]
		if !ok {
			return status.Errorf(codes.NotFound, "there is no snapshot %s", v.Snapshot)
		}

		size, block = from.Size, from.Block
	}

	if v.Source != "" {
		from, err := d.volume(v.Source)
		if err != nil {
			return err
		}

		size, block = from.Size, from.Block
	}

	if size > v.Size || block != v.Block {
		return status.Errorf(codes.InvalidArgument, "the source has %d bytes, block device: %v", size, block)
	}

	return nil
}

// DeleteVolume deletes a volume that no node uses.
func (d controller) DeleteVolume(
	_ context.Context,
	r *csi.DeleteVolumeRequest,
) (*csi.DeleteVolumeResponse, error) {
	v, err := d.volume(r.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		return &csi.DeleteVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}

	if len(v.Staged)+len(v.Published) > 0 {
		return nil, status.Errorf(
			codes.FailedPrecondition,
			"volume %s is used on %v%v",
			v.ID,
			v.Staged,
			v.Published,
		)
	}

	return &csi.DeleteVolumeResponse{}, d.store.remove(v.ID)
}

// ValidateVolumeCapabilities confirms what the volume is.
func (d controller) ValidateVolumeCapabilities(
	_ context.Context, r *csi.ValidateVolumeCapabilitiesRequest,
) (*csi.ValidateVolumeCapabilitiesResponse, error) {
	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}

	block, err := blockWanted(r.GetVolumeCapabilities())
	if err != nil {
		return nil, err
	}
	if block != v.Block {
		return &csi.ValidateVolumeCapabilitiesResponse{Message: "the volume is of the other kind"}, nil
	}

	return &csi.ValidateVolumeCapabilitiesResponse{
		Confirmed: &csi.ValidateVolumeCapabilitiesResponse_Confirmed{
			VolumeContext:      r.GetVolumeContext(),
			VolumeCapabilities: r.GetVolumeCapabilities(),
			Parameters:         r.GetParameters(),
		},
	}, nil
}

// ListVolumes lists the volumes by ID.
func (d controller) ListVolumes(
	_ context.Context,
	r *csi.ListVolumesRequest,
) (*csi.ListVolumesResponse, error) {
	ids, next, err := page(sorted(d.store.Volumes), r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}

	answer := &csi.ListVolumesResponse{NextToken: next}
	for _, id := range ids {
		answer.Entries = append(answer.Entries, &csi.ListVolumesResponse_Entry{
			Volume: &csi.Volume{VolumeId: id, CapacityBytes: d.store.Volumes[id].Size},
			Status: &csi.ListVolumesResponse_VolumeStatus{},
		})
	}

	return answer, nil
}

// ControllerExpandVolume makes a volume larger; the node's part comes after it.
func (d controller) ControllerExpandVolume(
	_ context.Context, r *csi.ControllerExpandVolumeRequest,
) (*csi.ControllerExpandVolumeResponse, error) {
	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if r.GetCapacityRange() == nil {
		return nil, status.Error(codes.InvalidArgument, "the request has no size")
	}

	size, err := sizeWanted(r.GetCapacityRange())
	if err != nil {
		return nil, err
	}
	if err := d.store.grow(v, size); err != nil {
		return nil, err
	}

	return &csi.ControllerExpandVolumeResponse{CapacityBytes: v.Size, NodeExpansionRequired: true}, nil
}

// ControllerModifyVolume records parameters.
func (d controller) ControllerModifyVolume(
	_ context.Context, r *csi.ControllerModifyVolumeRequest,
) (*csi.ControllerModifyVolumeResponse, error) {
	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if err := d.acceptsParameters(r.GetMutableParameters()); err != nil {
		return nil, err
	}

	v.Modified = r.GetMutableParameters()
	return &csi.ControllerModifyVolumeResponse{}, d.store.save()
}

func (d controller) acceptsParameters(parameters map[string]string) error {
	for name := range parameters {
		if len(d.mutable) > 0 && !slices.Contains(d.mutable, name) {
			return status.Errorf(codes.InvalidArgument, "no parameter %s can be modified", name)
		}
	}
	return nil
}
