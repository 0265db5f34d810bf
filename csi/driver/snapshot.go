package driver

import (
	"context"
	"fmt"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/trivet-node/trivet/csi/volume"
)

// CreateSnapshot keeps the content that a volume has at this moment, or returns the snapshot that an equal
// request made. It is ready at once.
func (c *controllerService) CreateSnapshot(
	ctx context.Context,
	req *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	if req.GetName() == "" || req.GetSourceVolumeId() == "" {
		return nil, invalid("snapshot name or source volume id is missing")
	}

	for key := range req.GetParameters() {
		if !strings.HasPrefix(key, "csi.storage.k8s.io/") {
			return nil, invalid("unknown parameter %q; a VolumeSnapshotClass of this driver has none", key)
		}
	}

	if volume.CheckID(req.GetSourceVolumeId()) != nil {
		return nil, fmt.Errorf("%w: source volume %q", volume.ErrNotFound, req.GetSourceVolumeId())
	}

	if err := c.checkHere(req.GetAccessibilityRequirements()); err != nil {
		return nil, err
	}

	s, err := c.volumes.Create(ctx, volume.Request{
		Name:     req.GetName(),
		Source:   req.GetSourceVolumeId(),
		Snapshot: true,
	})
	if err != nil {
		return nil, err
	}

	return &csi.CreateSnapshotResponse{Snapshot: c.snapshotToCSI(s)}, nil
}

func (l local) snapshotToCSI(s volume.Volume) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:         s.ID,
		SourceVolumeId:     s.Source,
		SizeBytes:          s.Size,
		CreationTime:       timestamppb.New(s.Created),
		ReadyToUse:         s.Damage == nil,
		AccessibleTopology: l.reachable,
		GroupSnapshotId:    l.groups.Of(s.ID),
	}
}

// DeleteSnapshot deletes a snapshot that belongs to no group. An ID that is not one of a snapshot names none,
// and deleting that is success.
func (c *controllerService) DeleteSnapshot(
	ctx context.Context,
	req *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is missing")
	}
	if volume.CheckID(req.GetSnapshotId()) != nil || !volume.IsSnapshotID(req.GetSnapshotId()) {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	if of := c.groups.Of(req.GetSnapshotId()); of != "" {
		return nil, invalid("snapshot %s belongs to group snapshot %s, with which it is deleted",
			req.GetSnapshotId(), of)
	}
	if err := c.volumes.Delete(ctx, req.GetSnapshotId()); err != nil {
		return nil, err
	}
	return &csi.DeleteSnapshotResponse{}, nil
}

// GetSnapshot returns a snapshot.
func (c *controllerService) GetSnapshot(
	_ context.Context,
	req *csi.GetSnapshotRequest,
) (*csi.GetSnapshotResponse, error) {
	if req.GetSnapshotId() == "" {
		return nil, invalid("snapshot id is missing")
	}
	s, err := c.snapshot(req.GetSnapshotId())
	if err != nil {
		return nil, err
	}
	return &csi.GetSnapshotResponse{Snapshot: c.snapshotToCSI(s)}, nil
}

// snapshot returns a snapshot. An ID that is not of this driver names none.
func (l local) snapshot(id string) (volume.Volume, error) {
	if volume.CheckID(id) != nil {
		return volume.Volume{}, fmt.Errorf("%w: snapshot %q", volume.ErrNotFound, id)
	}
	return l.volumes.Snapshot(id)
}

// ListSnapshots returns a page of the snapshots in the order of their IDs: of all, of those of one volume, or
// the one that is asked for. Where there is none that is an empty page.
func (c *controllerService) ListSnapshots(
	_ context.Context,
	req *csi.ListSnapshotsRequest,
) (*csi.ListSnapshotsResponse, error) {
	if id := req.GetSnapshotId(); id != "" {
		return c.listOne(id, req.GetSourceVolumeId()), nil
	}

	page, err := parsePage(req.GetMaxEntries(), req.GetStartingToken())
	if err != nil {
		return nil, err
	}

	found := c.volumes.Snapshots(req.GetSourceVolumeId(), page.after, page.ask())
	resp := &csi.ListSnapshotsResponse{}
	found, resp.NextToken = page.cut(found)
	for _, s := range found {
		entry := &csi.ListSnapshotsResponse_Entry{Snapshot: c.snapshotToCSI(s)}
		resp.Entries = append(resp.Entries, entry)
	}

	return resp, nil
}

// listOne lists a snapshot by its ID, and by its source if that is not "".
func (c *controllerService) listOne(id, source string) *csi.ListSnapshotsResponse {
	resp := &csi.ListSnapshotsResponse{}
	s, err := c.snapshot(id)
	if err == nil && (source == "" || source == s.Source) {
		resp.Entries = []*csi.ListSnapshotsResponse_Entry{{Snapshot: c.snapshotToCSI(s)}}
	}
	return resp
}

// sourceOf returns the ID of what a new volume is to begin with the content of; "" for an empty one.
func sourceOf(from *csi.VolumeContentSource) (string, error) {
	if from == nil {
		return "", nil
	}

	snapshot, origin := from.GetSnapshot().GetSnapshotId(), from.GetVolume().GetVolumeId()
	id := snapshot + origin
	switch {
	case id == "":
		return "", invalid("volume content source names neither a snapshot nor a volume")
	case volume.CheckID(id) != nil, volume.IsSnapshotID(id) != (snapshot != ""):
		return "", fmt.Errorf("%w: content source %q", volume.ErrNotFound, id)
	}

	return id, nil
}

// sourceToCSI says what a volume began with the content of.
func sourceToCSI(id string) *csi.VolumeContentSource {
	switch {
	case id == "":
		return nil
	case volume.IsSnapshotID(id):
		snapshot := &csi.VolumeContentSource_SnapshotSource{SnapshotId: id}
		return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{Snapshot: snapshot}}
	}
	origin := &csi.VolumeContentSource_VolumeSource{VolumeId: id}
	return &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{Volume: origin}}
}
