// Package csitest has what the tests of the controllers share: a cluster with the objects that they watch,
// and a CSI driver in memory.
package csitest

import (
	"context"
	"maps"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Sizes that a Controller gives. A volume can be no larger than MaxSize.
const (
	Capacity    = 10 << 30 // available for classes without a file system
	CapacityXFS = 5 << 30  // available for those with xfs
	MaxSize     = 10 << 30
)

// Controller is a CSI controller that keeps its volumes in memory. The zero value is ready. It is safe for
// concurrent use.
type Controller struct {
	// mu guards what follows.
	mu        sync.Mutex
	volumes   map[string]int64
	sources   map[string]string   // by volume, what it began with the content of
	snapshots map[string]string   // by ID, of which volume
	groups    map[string][]string // by ID, of which volumes
	fail      map[string]error
	limits    map[string]map[string]string // by volume, its mutable parameters
	calls     map[string]int
	nodeStep  bool
	shrinking bool
}

// FailOn makes calls of a method fail; a nil error ends that. "CreateVolume after" fails when the volume is
// made.
func (c *Controller) FailOn(method string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail == nil {
		c.fail = map[string]error{}
	}
	c.fail[method] = err
}

// GrowOnNode makes growth end on the node, as with file systems.
func (c *Controller) GrowOnNode() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodeStep = true
}

// Shrink makes each call of GetCapacity return less than the one before, as while somebody writes to the
// disk.
func (c *Controller) Shrink() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shrinking = true
}

// Volumes returns the sizes of all volumes by their IDs, which are their names.
func (c *Controller) Volumes() map[string]int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.volumes)
}

// Calls returns how often a method was called, or with the name of a volume appended ("CreateVolume NAME")
// how often for that.
func (c *Controller) Calls(method string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[method]
}

// called counts a call and returns the error that it is to fail with. mu is held.
func (c *Controller) called(method, volume string) error {
	if c.calls == nil {
		c.calls, c.volumes = map[string]int{}, map[string]int64{}
		c.sources, c.snapshots = map[string]string{}, map[string]string{}
		c.groups = map[string][]string{}
	}
	c.calls[method]++
	c.calls[method+" "+volume]++
	return c.fail[method]
}

// CreateVolume makes a volume of the required size where the request says.
func (c *Controller) CreateVolume(
	_ context.Context,
	r *csi.CreateVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.CreateVolumeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if err := c.called("CreateVolume", r.GetName()); err != nil {
		return nil, err
	}

	size := r.GetCapacityRange().GetRequiredBytes()
	c.volumes[r.GetName()] = size
	from := r.GetVolumeContentSource()
	c.setMutable(r.GetName(), r.GetMutableParameters())
	c.sources[r.GetName()] = from.GetSnapshot().GetSnapshotId() + from.GetVolume().GetVolumeId()
	if err := c.fail["CreateVolume after"]; err != nil {
		return nil, err
	}

	return &csi.CreateVolumeResponse{Volume: &csi.Volume{
		VolumeId:           r.GetName(),
		CapacityBytes:      size,
		AccessibleTopology: r.GetAccessibilityRequirements().GetRequisite(),
	}}, nil
}

// Source returns what a volume began with the content of.
func (c *Controller) Source(volume string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.sources[volume]
}

// Snapshots returns the volumes that there are snapshots of, by the snapshots' IDs, which are their names.
func (c *Controller) Snapshots() map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.snapshots)
}

// CreateSnapshot makes a snapshot.
func (c *Controller) CreateSnapshot(
	_ context.Context,
	r *csi.CreateSnapshotRequest,
	_ ...grpc.CallOption,
) (*csi.CreateSnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("CreateSnapshot", r.GetName()); err != nil {
		return nil, err
	}
	c.snapshots[r.GetName()] = r.GetSourceVolumeId()
	if err := c.fail["CreateSnapshot after"]; err != nil {
		return nil, err
	}
	return &csi.CreateSnapshotResponse{Snapshot: c.snapshot(r.GetName())}, nil
}

// snapshot is one that there is. mu is held.
func (c *Controller) snapshot(id string) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     id,
		SourceVolumeId: c.snapshots[id],
		SizeBytes:      1 << 30,
		CreationTime:   timestamppb.New(Born),
		ReadyToUse:     true,
	}
}

// GetSnapshot returns a snapshot.
func (c *Controller) GetSnapshot(
	_ context.Context,
	r *csi.GetSnapshotRequest,
	_ ...grpc.CallOption,
) (*csi.GetSnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("GetSnapshot", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	if _, ok := c.snapshots[r.GetSnapshotId()]; !ok {
		return nil, status.Error(codes.NotFound, "no such snapshot")
	}
	return &csi.GetSnapshotResponse{Snapshot: c.snapshot(r.GetSnapshotId())}, nil
}

// DeleteSnapshot deletes a snapshot. One that is not there is success.
func (c *Controller) DeleteSnapshot(
	_ context.Context,
	r *csi.DeleteSnapshotRequest,
	_ ...grpc.CallOption,
) (*csi.DeleteSnapshotResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("DeleteSnapshot", r.GetSnapshotId()); err != nil {
		return nil, err
	}
	delete(c.snapshots, r.GetSnapshotId())
	return &csi.DeleteSnapshotResponse{}, nil
}

// DeleteVolume deletes a volume. One that is not there is success.
func (c *Controller) DeleteVolume(
	_ context.Context,
	r *csi.DeleteVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.DeleteVolumeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("DeleteVolume", r.GetVolumeId()); err != nil {
		return nil, err
	}
	delete(c.volumes, r.GetVolumeId())
	return &csi.DeleteVolumeResponse{}, nil
}

// ControllerExpandVolume gives a volume the required size.
func (c *Controller) ControllerExpandVolume(
	_ context.Context,
	r *csi.ControllerExpandVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.ControllerExpandVolumeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("ControllerExpandVolume", r.GetVolumeId()); err != nil {
		return nil, err
	}
	size := r.GetCapacityRange().GetRequiredBytes()
	if size > MaxSize {
		return nil, status.Error(codes.OutOfRange, "too large")
	}
	c.volumes[r.GetVolumeId()] = size
	return &csi.ControllerExpandVolumeResponse{CapacityBytes: size, NodeExpansionRequired: c.nodeStep}, nil
}

// GetCapacity returns what is available for a class.
func (c *Controller) GetCapacity(
	_ context.Context,
	r *csi.GetCapacityRequest,
	_ ...grpc.CallOption,
) (*csi.GetCapacityResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if err := c.called("GetCapacity", ""); err != nil {
		return nil, err
	}

	free := int64(Capacity)
	if r.GetVolumeCapabilities()[0].GetMount().GetFsType() == "xfs" {
		free = CapacityXFS
	}
	if c.shrinking {
		free -= int64(c.calls["GetCapacity"]) << 20
	}

	return &csi.GetCapacityResponse{AvailableCapacity: free}, nil
}

// ControllerModifyVolume gives a volume the parameters in place of those that it has. One that is named
// "wrong" is refused.
func (c *Controller) ControllerModifyVolume(
	_ context.Context,
	r *csi.ControllerModifyVolumeRequest,
	_ ...grpc.CallOption,
) (*csi.ControllerModifyVolumeResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.called("ControllerModifyVolume", r.GetVolumeId()); err != nil {
		return nil, err
	}
	if _, wrong := r.GetMutableParameters()["wrong"]; wrong {
		return nil, status.Error(codes.InvalidArgument, "unknown parameter")
	}
	c.setMutable(r.GetVolumeId(), r.GetMutableParameters())
	return &csi.ControllerModifyVolumeResponse{}, nil
}

// setMutable keeps the mutable parameters of a volume. mu is held.
func (c *Controller) setMutable(id string, parameters map[string]string) {
	if c.limits == nil {
		c.limits = map[string]map[string]string{}
	}
	c.limits[id] = parameters
}

// Mutable returns the mutable parameters of a volume.
func (c *Controller) Mutable(id string) map[string]string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.limits[id])
}
