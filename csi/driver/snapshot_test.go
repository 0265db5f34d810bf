package driver

import (
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/volume"
)

// withSnapshots has three snapshots of two volumes.
func withSnapshots(t *testing.T) *fixture {
	t.Helper()
	f := serve(t)
	for id, source := range map[string]string{"snap-1": "plain", "snap-2": "raw", "snap-3": "plain"} {
		f.volumes.snapshots = append(f.volumes.snapshots, volume.Volume{
			Spec: volume.Spec{
				ID:       id,
				Source:   source,
				Snapshot: true,
				Size:     5,
			},
		})
	}
	slices.SortFunc(f.volumes.snapshots, func(a, b volume.Volume) int {
		return int(a.ID[5]) - int(b.ID[5])
	})
	return f
}

// Sidecars ask once what a driver can, and the suite of CSI skips what it says it cannot.
func TestCopiesAreAnnouncedWhereThereAreAny(t *testing.T) {
	for _, copies := range []bool{true, false} {
		f := serveConfig(t, func(c *Config) { c.Copies = copies })
		plugin, err := f.identity.GetPluginCapabilities(t.Context(), &csi.GetPluginCapabilitiesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		calls, err := f.controller.ControllerGetCapabilities(
			t.Context(), &csi.ControllerGetCapabilitiesRequest{})
		if err != nil {
			t.Fatal(err)
		}

		announced := plugin.String() + calls.String()
		for _, what := range []string{
			"GROUP_CONTROLLER_SERVICE", "SNAPSHOT_ACCESSIBILITY_CONSTRAINTS", "CREATE_DELETE_SNAPSHOT",
			"LIST_SNAPSHOTS", "GET_SNAPSHOT", "CLONE_VOLUME",
		} {
			if strings.Contains(announced, what) != copies {
				t.Errorf("copies %v: %s: %s", copies, what, announced)
			}
		}
	}
}

func TestCreateSnapshotAsksForACopy(t *testing.T) {
	f := serve(t)
	for _, c := range []struct {
		request *csi.CreateSnapshotRequest
		want    codes.Code
	}{
		{&csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "plain"}, codes.OK},
		{&csi.CreateSnapshotRequest{SourceVolumeId: "plain"}, codes.InvalidArgument},
		{&csi.CreateSnapshotRequest{Name: "s"}, codes.InvalidArgument},
		{&csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: "../x"}, codes.NotFound},
		{
			&csi.CreateSnapshotRequest{
				Name:           "s",
				SourceVolumeId: "plain",
				Parameters:     map[string]string{"a": "b"},
			},
			codes.InvalidArgument,
		},
	} {
		_, err := f.controller.CreateSnapshot(t.Context(), c.request)
		checkCode(t, c.request.String(), err, c.want)
	}

	if got := f.volumes.request; got.Name != "s" || got.Source != "plain" || !got.Snapshot {
		t.Errorf("request %+v", got)
	}
}

func TestListSnapshots(t *testing.T) {
	f := withSnapshots(t)
	for _, c := range []struct {
		request *csi.ListSnapshotsRequest
		want    []string
		next    string
	}{
		{&csi.ListSnapshotsRequest{}, []string{"snap-1", "snap-2", "snap-3"}, ""},
		{&csi.ListSnapshotsRequest{MaxEntries: 2}, []string{"snap-1", "snap-2"}, "after:snap-2"},
		{&csi.ListSnapshotsRequest{MaxEntries: 2, StartingToken: "after:snap-2"}, []string{"snap-3"}, ""},
		{&csi.ListSnapshotsRequest{SourceVolumeId: "plain"}, []string{"snap-1", "snap-3"}, ""},
		{&csi.ListSnapshotsRequest{SourceVolumeId: "none"}, nil, ""},
		{&csi.ListSnapshotsRequest{SnapshotId: "snap-2"}, []string{"snap-2"}, ""},
		{&csi.ListSnapshotsRequest{SnapshotId: "snap-2", SourceVolumeId: "plain"}, nil, ""},
		{&csi.ListSnapshotsRequest{SnapshotId: "../x"}, nil, ""},
	} {
		resp, err := f.controller.ListSnapshots(t.Context(), c.request)
		var got []string
		for _, e := range resp.GetEntries() {
			got = append(got, e.GetSnapshot().GetSnapshotId())
		}

		if err != nil || !slices.Equal(got, c.want) || resp.GetNextToken() != c.next {
			t.Errorf("%v: %q, next %q, %v; want %q, %q",
				c.request, got, resp.GetNextToken(), err, c.want, c.next)
		}
	}

	_, err := f.controller.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: "foreign"})
	checkCode(t, "a foreign token", err, codes.Aborted)
}

func TestGetSnapshot(t *testing.T) {
	f := withSnapshots(t)
	resp, err := f.controller.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: "snap-2"})
	s := resp.GetSnapshot()
	if err != nil || s.GetSourceVolumeId() != "raw" || s.GetSizeBytes() != 5 || !s.GetReadyToUse() ||
		len(s.GetAccessibleTopology()) != 1 {
		t.Errorf("%v, %v", s, err)
	}

	for id, want := range map[string]codes.Code{"": codes.InvalidArgument, "snap-4": codes.NotFound} {
		_, err := f.controller.GetSnapshot(t.Context(), &csi.GetSnapshotRequest{SnapshotId: id})
		checkCode(t, id, err, want)
	}
}

// An ID of one kind never deletes what is of the other.
func TestDeletionKnowsSnapshotsFromVolumes(t *testing.T) {
	f := serve(t)
	for _, id := range []string{"snap-1", "vol-1", "../x"} {
		request := &csi.DeleteVolumeRequest{VolumeId: id}
		if _, err := f.controller.DeleteVolume(t.Context(), request); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"vol-1"}; !slices.Equal(f.volumes.deleted, want) {
		t.Errorf("deleted %q, want %q", f.volumes.deleted, want)
	}

	f.volumes.deleted = nil
	for _, id := range []string{"snap-1", "vol-1", "../x"} {
		request := &csi.DeleteSnapshotRequest{SnapshotId: id}
		if _, err := f.controller.DeleteSnapshot(t.Context(), request); err != nil {
			t.Error(err)
		}
	}
	if want := []string{"snap-1"}; !slices.Equal(f.volumes.deleted, want) {
		t.Errorf("deleted %q, want %q", f.volumes.deleted, want)
	}
}
