package driver

import (
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/group"
	"github.com/trivet-node/trivet/csi/volume"
)

// withGroup has two snapshots in a group, and one in none.
func withGroup(t *testing.T) *fixture {
	t.Helper()
	f := withSnapshots(t)
	f.groups.all = []group.Group{{
		ID:        "group-1",
		Created:   time.Unix(7, 0),
		Snapshots: slices.Clone(f.volumes.snapshots[:2]),
	}}
	return f
}

func TestCreateVolumeGroupSnapshot(t *testing.T) {
	f := withGroup(t)
	all := []string{"plain", "raw"}
	for _, c := range []struct {
		request *csi.CreateVolumeGroupSnapshotRequest
		want    codes.Code
	}{
		{&csi.CreateVolumeGroupSnapshotRequest{SourceVolumeIds: all}, codes.InvalidArgument},
		{&csi.CreateVolumeGroupSnapshotRequest{Name: "g"}, codes.InvalidArgument},
		{
			&csi.CreateVolumeGroupSnapshotRequest{
				Name:            "g",
				SourceVolumeIds: all,
				Parameters:      map[string]string{"a": "b"},
			},
			codes.InvalidArgument,
		},
		{
			&csi.CreateVolumeGroupSnapshotRequest{
				Name:            "g",
				SourceVolumeIds: all,
				Parameters: map[string]string{
					"csi.storage.k8s.io/volumegroupsnapshot/name": "g",
					"deletionPolicy": "Delete",
				},
			},
			codes.OK,
		},
	} {
		_, err := f.group.CreateVolumeGroupSnapshot(t.Context(), c.request)
		checkCode(t, c.request.String(), err, c.want)
	}
	if want := []string{"g", "plain", "raw"}; !slices.Equal(f.groups.created, want) {
		t.Errorf("asked for %q, want %q", f.groups.created, want)
	}

	f.groups.err = volume.ErrUnavailable
	request := &csi.CreateVolumeGroupSnapshotRequest{Name: "g", SourceVolumeIds: all}
	_, err := f.group.CreateVolumeGroupSnapshot(t.Context(), request)
	checkCode(t, "no moment", err, codes.Unavailable)
}

func TestGetVolumeGroupSnapshot(t *testing.T) {
	f := withGroup(t)
	for _, c := range []struct {
		id     string
		listed []string
		want   codes.Code
	}{
		{"group-1", nil, codes.OK},
		{"group-1", []string{"snap-2", "snap-1"}, codes.OK},
		{"group-1", []string{"snap-2", "snap-3"}, codes.InvalidArgument},
		{"group-2", nil, codes.NotFound},
		{"", nil, codes.InvalidArgument},
	} {
		request := &csi.GetVolumeGroupSnapshotRequest{GroupSnapshotId: c.id, SnapshotIds: c.listed}
		resp, err := f.group.GetVolumeGroupSnapshot(t.Context(), request)
		checkCode(t, request.String(), err, c.want)
		if g := resp.GetGroupSnapshot(); err == nil &&
			(!g.GetReadyToUse() || len(g.GetSnapshots()) != 2 || g.GetCreationTime().GetSeconds() != 7 ||
				g.GetSnapshots()[1].GetGroupSnapshotId() != "group-1") {
			t.Errorf("group %v", g)
		}
	}
}

func TestDeleteVolumeGroupSnapshot(t *testing.T) {
	f := withGroup(t)
	for _, c := range []struct {
		id     string
		listed []string
		want   codes.Code
	}{
		{"", nil, codes.InvalidArgument},
		{"group-1", []string{"snap-1"}, codes.InvalidArgument},
		{"group-1", []string{"snap-1", "snap-2"}, codes.OK},
		{"group-2", []string{"snap-1"}, codes.OK},
	} {
		request := &csi.DeleteVolumeGroupSnapshotRequest{GroupSnapshotId: c.id, SnapshotIds: c.listed}
		_, err := f.group.DeleteVolumeGroupSnapshot(t.Context(), request)
		checkCode(t, request.String(), err, c.want)
	}
	if want := []string{"group-1", "group-2"}; !slices.Equal(f.groups.deleted, want) {
		t.Errorf("deleted %q, want %q", f.groups.deleted, want)
	}
}

// Where the record of a group is not known its snapshots are deleted nevertheless, and no others.
func TestDeleteVolumeGroupSnapshotOfWhichSnapshotsAreLeft(t *testing.T) {
	f := withGroup(t)
	f.volumes.snapshots[0].Name = "group-2/vol-a"
	f.volumes.snapshots[1].Name = "group-22/vol-a"
	f.volumes.snapshots[2].Name = "snapshot-x"
	request := &csi.DeleteVolumeGroupSnapshotRequest{
		GroupSnapshotId: "group-2",
		SnapshotIds:     []string{"snap-0", "snap-1", "snap-2", "snap-3"},
	}
	_, err := f.group.DeleteVolumeGroupSnapshot(t.Context(), request)
	checkCode(t, "those that are left", err, codes.OK)
	if want := []string{"snap-1"}; !slices.Equal(f.volumes.deleted, want) {
		t.Errorf("deleted %q, want %q", f.volumes.deleted, want)
	}

	f.volumes.err = volume.ErrInUse
	_, err = f.group.DeleteVolumeGroupSnapshot(t.Context(), request)
	checkCode(t, "one in use", err, codes.FailedPrecondition)
}

// A snapshot says which group it belongs to, and is deleted with that only.
func TestSnapshotOfAGroup(t *testing.T) {
	f := withGroup(t)
	for id, want := range map[string]codes.Code{"snap-1": codes.InvalidArgument, "snap-3": codes.OK} {
		_, err := f.controller.DeleteSnapshot(t.Context(), &csi.DeleteSnapshotRequest{SnapshotId: id})
		checkCode(t, id, err, want)
		resp, err := f.controller.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: id})
		of := resp.GetSnapshot().GetGroupSnapshotId()
		if err != nil || (of == "group-1") != (id == "snap-1") {
			t.Errorf("%s is of %q, %v", id, of, err)
		}
	}
}
