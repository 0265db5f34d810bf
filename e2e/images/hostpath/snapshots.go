package main

import (
	"context"
	"crypto/rand"
	"os"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// CreateSnapshot copies a volume's contents once for a name.
func (d controller) CreateSnapshot(
	_ context.Context, r *csi.CreateSnapshotRequest,
) (*csi.CreateSnapshotResponse, error) {
	if r.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no name")
	}
	if r.GetSourceVolumeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no volume ID")
	}

	if there := d.store.snapshotNamed(r.GetName()); there != nil {
		if there.Volume != r.GetSourceVolumeId() {
			return nil, status.Errorf(codes.AlreadyExists, "snapshot %s is of another volume", there.Name)
		}

		return &csi.CreateSnapshotResponse{Snapshot: described(there)}, nil
	}

	v, err := d.volume(r.GetSourceVolumeId())
	if err != nil {
		return nil, err
	}

	snap := &snapshot{
		ID:     strings.ToLower(rand.Text()),
		Name:   r.GetName(),
		Volume: v.ID,
		Size:   v.Size,
		Block:  v.Block,
		Made:   time.Now().UnixNano(),
	}
	if err := d.store.snapshot(snap); err != nil {
		return nil, err
	}

	return &csi.CreateSnapshotResponse{Snapshot: described(snap)}, nil
}

// snapshot copies the contents and records the snapshot.
func (s *store) snapshot(snap *snapshot) error {
	path := s.path(snap.ID)
	if err := copyContents(s.path(snap.Volume), path); err != nil {
		_ = os.RemoveAll(path)
		return err
	}

	s.Snapshots[snap.ID] = snap
	return s.save()
}

func described(snap *snapshot) *csi.Snapshot {
	return &csi.Snapshot{
		SnapshotId:     snap.ID,
		SourceVolumeId: snap.Volume,
		SizeBytes:      snap.Size,
		CreationTime:   timestamppb.New(time.Unix(0, snap.Made)),
		ReadyToUse:     true,
	}
}

// DeleteSnapshot deletes a snapshot; what was made of it is a copy.
func (d controller) DeleteSnapshot(
	_ context.Context, r *csi.DeleteSnapshotRequest,
) (*csi.DeleteSnapshotResponse, error) {
	if r.GetSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no snapshot ID")
	}
	if _, ok := d.store.Snapshots[r.GetSnapshotId()]; !ok {
		return &csi.DeleteSnapshotResponse{}, nil
	}
	return &csi.DeleteSnapshotResponse{}, d.store.remove(r.GetSnapshotId())
}

// ListSnapshots lists all, that of an ID, or those of a volume.
func (d controller) ListSnapshots(
	_ context.Context, r *csi.ListSnapshotsRequest,
) (*csi.ListSnapshotsResponse, error) {
	var wanted []string
	for _, id := range sorted(d.store.Snapshots) {
		byID := r.GetSnapshotId() == "" || r.GetSnapshotId() == id
		volume := d.store.Snapshots[id].Volume
		if byID && (r.GetSourceVolumeId() == "" || r.GetSourceVolumeId() == volume) {
			wanted = append(wanted, id)
		}
	}

	ids, next, err := page(wanted, r.GetStartingToken(), r.GetMaxEntries())
	if err != nil {
		return nil, err
	}

	answer := &csi.ListSnapshotsResponse{NextToken: next}
	for _, id := range ids {
		entry := &csi.ListSnapshotsResponse_Entry{Snapshot: described(d.store.Snapshots[id])}
		answer.Entries = append(answer.Entries, entry)
	}

	return answer, nil
}
