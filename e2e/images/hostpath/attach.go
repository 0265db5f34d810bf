package main

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// ControllerPublishVolume attaches a volume to the only node that there is, which is a matter of records.
func (d controller) ControllerPublishVolume(
	_ context.Context,
	r *csi.ControllerPublishVolumeRequest,
) (*csi.ControllerPublishVolumeResponse, error) {
	if r.GetVolumeCapability() == nil || r.GetNodeId() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no capability or no node ID")
	}

	v, err := d.volume(r.GetVolumeId())
	switch {
	case err != nil:
		return nil, err
	case r.GetNodeId() != d.node:
		return nil, status.Errorf(codes.NotFound, "there is no node %s", r.GetNodeId())
	case v.Attached:
		return &csi.ControllerPublishVolumeResponse{}, nil
	case d.maxAttached > 0 && d.attached() >= d.maxAttached:
		return nil, status.Errorf(codes.ResourceExhausted, "%d volumes are attached already", d.maxAttached)
	}

	v.Attached = true
	return &csi.ControllerPublishVolumeResponse{}, d.store.save()
}

// attached is how many volumes are.
func (d controller) attached() (n int64) {
	for _, v := range d.store.Volumes {
		if v.Attached {
			n++
		}
	}
	return n
}

// ControllerUnpublishVolume detaches a volume. Whether one that is staged is refused is said by a flag, as
// with the real driver: the suite's mock driver detaches it.
func (d controller) ControllerUnpublishVolume(
	_ context.Context,
	r *csi.ControllerUnpublishVolumeRequest,
) (*csi.ControllerUnpublishVolumeResponse, error) {
	v, err := d.volume(r.GetVolumeId())
	if status.Code(err) == codes.NotFound {
		return &csi.ControllerUnpublishVolumeResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	if d.strict && len(v.Staged) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is staged at %v", v.ID, v.Staged)
	}

	v.Attached = false
	return &csi.ControllerUnpublishVolumeResponse{}, d.store.save()
}
