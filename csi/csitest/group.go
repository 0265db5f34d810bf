package csitest

import (
	"context"
	"maps"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Groups returns the volumes that there are group snapshots of, by the groups' IDs, which are their names.
func (c *Controller) Groups() map[string][]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.groups)
}

// CreateVolumeGroupSnapshot makes a group snapshot.
func (c *Controller) CreateVolumeGroupSnapshot(
	_ context.Context,
	r *csi.CreateVolumeGroupSnapshotRequest,
	_ ...grpc.CallOption,
) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("CreateVolumeGroupSnapshot", r.GetName()); err != nil {
		return nil, err
	}
	c.groups[r.GetName()] = r.GetSourceVolumeIds()
	if err := c.fail["CreateVolumeGroupSnapshot after"]; err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: c.group(r.GetName())}, nil
}

// group is one that there is. mu is held.
func (c *Controller) group(id string) *csi.VolumeGroupSnapshot {
	g := &csi.VolumeGroupSnapshot{
		GroupSnapshotId: id,
		CreationTime:    timestamppb.New(Born),
		ReadyToUse:      true,
	}
	for _, source := range c.groups[id] {
		g.Snapshots = append(g.Snapshots, &csi.Snapshot{
			SnapshotId:      "snap-of-" + source,
			SourceVolumeId:  source,
			SizeBytes:       1 << 30,
			CreationTime:    g.GetCreationTime(),
			ReadyToUse:      true,
			GroupSnapshotId: id,
		})
	}
	return g
}

// GetVolumeGroupSnapshot returns a group snapshot.
func (c *Controller) GetVolumeGroupSnapshot(
	_ context.Context,
	r *csi.GetVolumeGroupSnapshotRequest,
	_ ...grpc.CallOption,
) (*csi.GetVolumeGroupSnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("GetVolumeGroupSnapshot", r.GetGroupSnapshotId()); err != nil {
		return nil, err
	}
	if _, ok := c.groups[r.GetGroupSnapshotId()]; !ok {
		return nil, status.Error(codes.NotFound, "no such group snapshot")
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: c.group(r.GetGroupSnapshotId())}, nil
}

// DeleteVolumeGroupSnapshot deletes a group snapshot. One that is not there is success.
func (c *Controller) DeleteVolumeGroupSnapshot(
	_ context.Context,
	r *csi.DeleteVolumeGroupSnapshotRequest,
	_ ...grpc.CallOption,
) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("DeleteVolumeGroupSnapshot", r.GetGroupSnapshotId()); err != nil {
		return nil, err
	}
	delete(c.groups, r.GetGroupSnapshotId())
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}
