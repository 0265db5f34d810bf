package driver

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/volume"
)

// Groups are the group snapshots of this node. It is a group.Groups.
type Groups interface {
	Create(ctx context.Context, name string, sources []string) (group.Group, error)
	Delete(ctx context.Context, id string) error
	Get(id string) (group.Group, error)

	// Of returns the ID of the group that a snapshot belongs to, "" if there is none.
	Of(snapshot string) string
}

// deletionPolicy is a field of a VolumeGroupSnapshotClass, which Kubernetes keeps to. The specs of its suite
// have it among the parameters, too, where it means nothing.
const deletionPolicy = "deletionPolicy"

// groupService is the GroupController service.
type groupService struct {
	csi.UnimplementedGroupControllerServer
	local
}

// GroupControllerGetCapabilities says that group snapshots are served.
func (*groupService) GroupControllerGetCapabilities(
	context.Context,
	*csi.GroupControllerGetCapabilitiesRequest,
) (*csi.GroupControllerGetCapabilitiesResponse, error) {
	t := csi.GroupControllerServiceCapability_RPC_CREATE_DELETE_GET_VOLUME_GROUP_SNAPSHOT
	rpc := &csi.GroupControllerServiceCapability_Rpc{Rpc: &csi.GroupControllerServiceCapability_RPC{Type: t}}
	return &csi.GroupControllerGetCapabilitiesResponse{
		Capabilities: []*csi.GroupControllerServiceCapability{{Type: rpc}},
	}, nil
}

// CreateVolumeGroupSnapshot keeps the content that several volumes have at one moment, or returns the group
// that an equal request made. It is ready at once.
func (s *groupService) CreateVolumeGroupSnapshot(
	ctx context.Context,
	req *csi.CreateVolumeGroupSnapshotRequest,
) (*csi.CreateVolumeGroupSnapshotResponse, error) {
	if req.GetName() == "" || len(req.GetSourceVolumeIds()) == 0 {
		return nil, invalid("group snapshot name or source volume ids are missing")
	}
	for key := range req.GetParameters() {
		if !strings.HasPrefix(key, "csi.storage.k8s.io/") && key != deletionPolicy {
			return nil, invalid("unknown parameter %q; a VolumeGroupSnapshotClass has none here", key)
		}
	}

	g, err := s.groups.Create(ctx, req.GetName(), req.GetSourceVolumeIds())
	if err != nil {
		return nil, err
	}
	return &csi.CreateVolumeGroupSnapshotResponse{GroupSnapshot: s.groupToCSI(g)}, nil
}

// DeleteVolumeGroupSnapshot deletes a group with its snapshots. One that does not exist is success.
func (s *groupService) DeleteVolumeGroupSnapshot(
	ctx context.Context,
	req *csi.DeleteVolumeGroupSnapshotRequest,
) (*csi.DeleteVolumeGroupSnapshotResponse, error) {
	if req.GetGroupSnapshotId() == "" {
		return nil, invalid("group snapshot id is missing")
	}

	// A group that was not finished, or whose snapshots are damaged, is deleted whatever is listed.
	g, err := s.groups.Get(req.GetGroupSnapshotId())
	if err == nil {
		err = checkListed(g, req.GetSnapshotIds())
		if err != nil {
			return nil, err
		}
	}

	if err := s.groups.Delete(ctx, req.GetGroupSnapshotId()); err != nil {
		return nil, err
	}
	if err := s.deleteLeft(ctx, req.GetGroupSnapshotId(), req.GetSnapshotIds()); err != nil {
		return nil, err
	}
	return &csi.DeleteVolumeGroupSnapshotResponse{}, nil
}

// deleteLeft deletes the listed snapshots of a group that are there although the group is not: its record was
// set aside, or is another version's.
func (s *groupService) deleteLeft(ctx context.Context, group string, listed []string) error {
	for _, id := range listed {
		snapshot, err := s.volumes.Snapshot(id)
		if errors.Is(err, volume.ErrNotFound) {
			continue
		}
		if err == nil && strings.HasPrefix(snapshot.Name, group+"/") {
			err = s.volumes.Delete(ctx, id)
		}
		if err != nil {
			return fmt.Errorf("delete group snapshot %s: %w", group, err)
		}
	}
	return nil
}

// GetVolumeGroupSnapshot returns a group.
func (s *groupService) GetVolumeGroupSnapshot(
	_ context.Context,
	req *csi.GetVolumeGroupSnapshotRequest,
) (*csi.GetVolumeGroupSnapshotResponse, error) {
	if req.GetGroupSnapshotId() == "" {
		return nil, invalid("group snapshot id is missing")
	}
	g, err := s.groups.Get(req.GetGroupSnapshotId())
	if err != nil {
		return nil, err
	}
	if err := checkListed(g, req.GetSnapshotIds()); err != nil {
		return nil, err
	}
	return &csi.GetVolumeGroupSnapshotResponse{GroupSnapshot: s.groupToCSI(g)}, nil
}

// checkListed refuses a list of snapshots that are not those of the group. One who does not know them lists
// none.
func checkListed(g group.Group, listed []string) error {
	if len(listed) == 0 {
		return nil
	}
	var have []string
	for _, s := range g.Snapshots {
		have = append(have, s.ID)
	}
	if slices.Equal(slices.Sorted(slices.Values(have)), slices.Sorted(slices.Values(listed))) {
		return nil
	}
	return fmt.Errorf("%w: group snapshot %s has the snapshots %q, listed were %q",
		volume.ErrInvalid, g.ID, have, listed)
}

func (s *groupService) groupToCSI(g group.Group) *csi.VolumeGroupSnapshot {
	out := &csi.VolumeGroupSnapshot{
		GroupSnapshotId: g.ID,
		CreationTime:    timestamppb.New(g.Created),
		ReadyToUse:      true,
	}
	for _, v := range g.Snapshots {
		snapshot := s.snapshotToCSI(v)
		out.Snapshots = append(out.Snapshots, snapshot)
		out.ReadyToUse = out.ReadyToUse && snapshot.GetReadyToUse()
	}
	return out
}
