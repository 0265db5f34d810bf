package driver

import (
	"context"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/volume"
)

// ControllerGetVolumeHealth returns what is wrong with a volume.
func (c *controllerService) ControllerGetVolumeHealth(
	_ context.Context,
	req *csi.ControllerGetVolumeHealthRequest,
) (*csi.ControllerGetVolumeHealthResponse, error) {
	health, err := c.health(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// NodeGetVolumeHealth is ControllerGetVolumeHealth for kubelet.
func (n *nodeService) NodeGetVolumeHealth(
	_ context.Context,
	req *csi.NodeGetVolumeHealthRequest,
) (*csi.NodeGetVolumeHealthResponse, error) {
	health, err := n.health(req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// health returns what is wrong with the volume of a request.
func (l local) health(id string) (*csi.VolumeHealth, error) {
	if id == "" {
		return nil, invalid("volume id is missing")
	}
	v, err := l.get(id)
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
