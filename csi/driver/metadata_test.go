package driver

import (
	"context"
	"errors"
	"io"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"

	"github.com/trivet-node/trivet/csi/changedblocks"
	"github.com/trivet-node/trivet/csi/snapshotmetadata"
	"github.com/trivet-node/trivet/csi/volume"
)

// failingBlocks has an error for every call.
type failingBlocks struct{ err error }

func (b failingBlocks) Allocated(context.Context, string, int64, changedblocks.Each) error {
	return b.err
}

func (b failingBlocks) Changed(context.Context, string, string, int64, changedblocks.Each) error {
	return b.err
}

// Where no snapshots share blocks nothing is announced, and nothing served.
func TestSnapshotMetadataIsServedWhereItIsAnnounced(t *testing.T) {
	served := snapshotmetadata.New(failingBlocks{volume.ErrNotFound})
	for _, c := range []struct {
		service csi.SnapshotMetadataServer
		want    codes.Code
	}{
		{nil, codes.Unimplemented},
		{served, codes.NotFound},
	} {
		f := serveConfig(t, func(config *Config) { config.Metadata = c.service })
		request := &csi.GetPluginCapabilitiesRequest{}
		capabilities, err := f.identity.GetPluginCapabilities(t.Context(), request)
		if err != nil {
			t.Fatal(err)
		}

		announced := false
		for _, one := range capabilities.GetCapabilities() {
			if one.GetService().GetType() == csi.PluginCapability_Service_SNAPSHOT_METADATA_SERVICE {
				announced = true
			}
		}
		if announced != (c.service != nil) {
			t.Errorf("service %v, announced: %v", c.service, announced)
		}
		checkCode(t, "allocated", f.allocated(t, "snap-1"), c.want)
	}
}

func TestCodesOfSnapshotMetadata(t *testing.T) {
	for _, c := range []struct {
		err              error
		allocated, delta codes.Code
	}{
		{nil, codes.OK, codes.OK},
		{volume.ErrInvalid, codes.InvalidArgument, codes.InvalidArgument},
		{volume.ErrNotFound, codes.NotFound, codes.NotFound},
		{volume.ErrSize, codes.OutOfRange, codes.OutOfRange},
		{changedblocks.ErrNoBlocks, codes.InvalidArgument, codes.FailedPrecondition},
		{volume.ErrUnavailable, codes.Unavailable, codes.Unavailable},
		{volume.ErrDamaged, codes.DataLoss, codes.DataLoss},
	} {
		f := serveConfig(t, func(config *Config) {
			config.Metadata = snapshotmetadata.New(failingBlocks{c.err})
		})
		checkCode(t, "allocated", f.allocated(t, "snap-1"), c.allocated)
		checkCode(t, "delta", f.delta(t, "snap-1", "snap-2"), c.delta)
		checkCode(t, "no ID", f.allocated(t, ""), codes.InvalidArgument)
		checkCode(t, "no base", f.delta(t, "", "snap-2"), codes.InvalidArgument)
	}
}

// allocated returns how a stream ends.
func (f *fixture) allocated(t *testing.T, id string) error {
	t.Helper()
	request := &csi.GetMetadataAllocatedRequest{SnapshotId: id}
	stream, err := f.metadata.GetMetadataAllocated(t.Context(), request)
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (f *fixture) delta(t *testing.T, base, target string) error {
	t.Helper()
	request := &csi.GetMetadataDeltaRequest{BaseSnapshotId: base, TargetSnapshotId: target}
	stream, err := f.metadata.GetMetadataDelta(t.Context(), request)
	for err == nil {
		_, err = stream.Recv()
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
