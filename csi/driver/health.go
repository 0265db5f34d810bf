package driver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/volume"
)

// ControllerGetVolumeHealth returns what is wrong with a volume.
func (c *controllerService) ControllerGetVolumeHealth(
	_ context.Context,
	req *csi.ControllerGetVolumeHealthRequest,
) (*csi.ControllerGetVolumeHealthResponse, error) {
	health, err := healthAs(req.GetVolumeId(), c.get)
	if err != nil {
		return nil, err
	}
	return &csi.ControllerGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// ControllerListVolumeHealth returns a page of the volumes with which something is wrong, as ListVolumes.
func (c *controllerService) ControllerListVolumeHealth(
	_ context.Context,
	req *csi.ControllerListVolumeHealthRequest,
) (*csi.ControllerListVolumeHealthResponse, error) {
	page, err := parsePage(req.GetMaxEntries(), req.GetStartingToken())
	if err != nil {
		return nil, err
	}

	ill := c.volumes.List(page.after, 0)
	ill = slices.DeleteFunc(ill, func(v volume.Volume) bool { return v.Damage == nil && v.Trouble == nil })
	resp := &csi.ControllerListVolumeHealthResponse{}
	ill, resp.NextToken = page.cut(ill)
	for _, v := range ill {
		resp.Entries = append(resp.Entries, healthOf(v))
	}

	return resp, nil
}

// NodeGetStorageHealth returns what is wrong with what holds the volumes.
func (n *nodeService) NodeGetStorageHealth(
	context.Context,
	*csi.NodeGetStorageHealthRequest,
) (*csi.NodeGetStorageHealthResponse, error) {
	resp := &csi.NodeGetStorageHealthResponse{}
	trouble := n.volumes.Trouble()
	for _, backend := range slices.Sorted(maps.Keys(trouble)) {
		err := trouble[backend]
		if err == nil {
			continue
		}

		status := csi.StorageHealthErrorType_STORAGE_DEGRADED
		if errors.Is(err, volume.ErrUnavailable) || errors.Is(err, volume.ErrDamaged) {
			status = csi.StorageHealthErrorType_STORAGE_UNREACHABLE
		}

		ill := &csi.NodeGetStorageHealthResponse_StorageBackendHealth{
			Status:  status,
			Reason:  "BackendInTrouble" + strings.ToUpper(backend[:1]) + backend[1:],
			Message: fmt.Sprintf("backend %s: %v", backend, err),
		}
		resp.BackendHealth = append(resp.BackendHealth, ill)
	}

	return resp, nil
}

// NodeGetVolumeHealth is ControllerGetVolumeHealth for kubelet, of inline volumes, too.
func (n *nodeService) NodeGetVolumeHealth(
	_ context.Context,
	req *csi.NodeGetVolumeHealthRequest,
) (*csi.NodeGetVolumeHealthResponse, error) {
	health, err := healthAs(req.GetVolumeId(), n.seen)
	if err != nil {
		return nil, err
	}
	return &csi.NodeGetVolumeHealthResponse{VolumeHealth: health}, nil
}

// healthAs returns what is wrong with the volume of a request, which has that ID for who asks.
func healthAs(id string, get func(string) (volume.Volume, error)) (*csi.VolumeHealth, error) {
	if id == "" {
		return nil, invalid("volume id is missing")
	}
	v, err := get(id)
	if err != nil {
		return nil, err
	}

	health := healthOf(v)
	health.VolumeId = id
	return health, nil
}

// healthOf returns what is wrong with a volume: its content is lost (DATA_LOSS) or cannot be used for another
// reason (INACCESSIBLE), or what holds it does not work as it should (DEGRADED).
func healthOf(v volume.Volume) *csi.VolumeHealth {
	health := &csi.VolumeHealth{VolumeId: v.ID}
	if v.Damage != nil {
		entry := &csi.VolumeHealth_VolumeHealthEntry{
			Status:  csi.VolumeHealthErrorType_INACCESSIBLE,
			Reason:  "VolumeDamaged",
			Message: v.Damage.Error(),
		}
		if errors.Is(v.Damage, volume.ErrLost) {
			entry.Status, entry.Reason = csi.VolumeHealthErrorType_DATA_LOSS, "VolumeLost"
		}
		health.HealthStatuses = append(health.HealthStatuses, entry)
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
