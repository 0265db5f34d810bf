package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/volume"
)

// ControllerGetVolumeHealth returns what is wrong with a volume.
func (d *Driver) ControllerGetVolumeHealth(_ context.Context, req *csi.ControllerGetVolumeHealthRequest) (
	*csi.ControllerGetVolumeHealthResponse, error,
) {
	health, err := d.health(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// NodeGetVolumeHealth is ControllerGetVolumeHealth for kubelet.
func (d *Driver) NodeGetVolumeHealth(_ context.Context, req *csi.NodeGetVolumeHealthRequest) (
	*csi.NodeGetVolumeHealthResponse, error,
) {
	health, err := d.health(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

func (d *Driver) health(id string) (*csi.VolumeHealth, error) {
	if id == "" {
		return nil, invalid("volume id is missing")
	}
	v, err := d.get(id)
	if err != nil {
		return nil, err
	}
	return healthOf(v), nil
}

// healthOf returns what is wrong with a volume: its content is not there, or what holds it does not work.
func healthOf(v volume.Volume) *csi.VolumeHealth {
	health := &csi.VolumeHealth{VolumeId: v.ID}
	if v.Damage != nil {
		health.HealthStatuses = append(health.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
			Status:  csi.VolumeHealthErrorType_INACCESSIBLE,
			Reason:  "VolumeDamaged",
			Message: v.Damage.Error(),
		})
	}

	if v.Trouble != nil {
		health.HealthStatuses = append(health.HealthStatuses, &csi.VolumeHealth_VolumeHealthEntry{
			Status:  csi.VolumeHealthErrorType_DEGRADED,
			Reason:  "BackendInTrouble",
			Message: v.Trouble.Error(),
		})
	}

	return health
}
