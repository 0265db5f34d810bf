package driver

import (
	"context"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/trivet-node/trivet/csi/volume"
)

// nodeService is the Node service.
type nodeService struct {
	csi.UnimplementedNodeServer
	local
	inlineDir   string // see Config
	inlineMost  int64  // see Config
	volumesMost int64  // see Config

	// inlineMu is held from counting inline volumes to making one: the same bytes are not given twice.
	inlineMu sync.Mutex
}

// NodeGetInfo returns the topology in which the volumes of this node can be reached, the node itself, and how
// many of them it may have.
func (n *nodeService) NodeGetInfo(
	context.Context,
	*csi.NodeGetInfoRequest,
) (*csi.NodeGetInfoResponse, error) {
	resp := &csi.NodeGetInfoResponse{
		NodeId:             n.node,
		AccessibleTopology: topologyOf(n.node),
		MaxVolumesPerNode:  n.volumesMost,
	}
	if n.attached != nil {
		resp.MaxVolumesPerNode = n.attached.Most()
	}
	return resp, nil
}

// NodeGetCapabilities says which optional calls of the node service are served.
func (*nodeService) NodeGetCapabilities(
	context.Context,
	*csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	resp := &csi.NodeGetCapabilitiesResponse{}
	for _, t := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
		csi.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP,
		csi.NodeServiceCapability_RPC_GET_VOLUME_HEALTH,
		csi.NodeServiceCapability_RPC_GET_STORAGE_HEALTH,
	} {
		rpc := &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: t}}
		resp.Capabilities = append(resp.Capabilities, &csi.NodeServiceCapability{Type: rpc})
	}

	return resp, nil
}

// NodeStageVolume mounts a volume on the staging path, or attaches its device.
func (n *nodeService) NodeStageVolume(
	ctx context.Context,
	req *csi.NodeStageVolumeRequest,
) (*csi.NodeStageVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetStagingTargetPath() == "" {
		return nil, invalid("volume id or staging path is missing")
	}

	w, err := parseCapabilities(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if _, err := n.get(req.GetVolumeId()); err != nil {
		return nil, err
	}

	if _, err := n.howAttached(req.GetVolumeId()); err != nil {
		return nil, err
	}

	use := w.use(false)
	use.Secret = req.GetSecrets()[volume.SecretKey]
	err = n.publisher.Stage(ctx, req.GetVolumeId(), req.GetStagingTargetPath(), use)
	if err != nil {
		return nil, err
	}

	return &csi.NodeStageVolumeResponse{}, nil
}

// NodeUnstageVolume undoes NodeStageVolume. What is not staged is success.
func (n *nodeService) NodeUnstageVolume(
	ctx context.Context,
	req *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetStagingTargetPath() == "" {
		return nil, invalid("volume id or staging path is missing")
	}
	if err := n.publisher.Unstage(ctx, req.GetVolumeId(), req.GetStagingTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnstageVolumeResponse{}, nil
}

// NodePublishVolume puts a staged volume on a target, for one pod.
func (n *nodeService) NodePublishVolume(
	ctx context.Context,
	req *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetTargetPath() == "" {
		return nil, invalid("volume id or target path is missing")
	}

	if req.GetVolumeContext()[inlineKey] == "true" {
		if err := n.publishInline(ctx, req); err != nil {
			return nil, err
		}
		return &csi.NodePublishVolumeResponse{}, nil
	}

	w, err := parseCapabilities(req.GetVolumeCapability())
	if err != nil {
		return nil, err
	}
	if _, err := n.get(req.GetVolumeId()); err != nil {
		return nil, explainInline(req, err)
	}

	how, err := n.howAttached(req.GetVolumeId())
	if err != nil {
		return nil, err
	}

	use := w.use(req.GetReadonly() || how.ReadOnly)
	err = n.publisher.Publish(ctx, req.GetVolumeId(), req.GetTargetPath(), use)
	if err != nil {
		return nil, err
	}

	return &csi.NodePublishVolumeResponse{}, nil
}

// NodeUnpublishVolume undoes NodePublishVolume. What is not published is success.
func (n *nodeService) NodeUnpublishVolume(
	ctx context.Context,
	req *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetTargetPath() == "" {
		return nil, invalid("volume id or target path is missing")
	}
	if err := n.unpublish(ctx, req.GetVolumeId(), req.GetTargetPath()); err != nil {
		return nil, err
	}
	return &csi.NodeUnpublishVolumeResponse{}, nil
}

// NodeGetVolumeStats returns how much of a volume is used. Of a raw block volume only the size is known, and
// a file system without a fixed number of inodes has no usage of those.
func (n *nodeService) NodeGetVolumeStats(
	ctx context.Context,
	req *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	if req.GetVolumeId() == "" || req.GetVolumePath() == "" {
		return nil, invalid("volume id or path is missing")
	}
	seen, err := n.seen(req.GetVolumeId())
	if err != nil {
		return nil, err
	}

	v, u, err := n.publisher.Stats(seen.ID, req.GetVolumePath())
	if err != nil {
		return nil, err
	}

	bytes := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: u.Total}
	resp := &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{bytes}}
	if v.Access == volume.Block {
		return resp, nil
	}

	bytes.Used, bytes.Available = u.Used, u.Available
	if u.InodesTotal > 0 {
		resp.Usage = append(resp.Usage, &csi.VolumeUsage{
			Unit:      csi.VolumeUsage_INODES,
			Total:     u.InodesTotal,
			Used:      u.InodesUsed,
			Available: u.InodesAvailable,
		})
	}

	return resp, nil
}

// NodeExpandVolume lets the file system of a staged volume take the space that the volume has grown by.
func (n *nodeService) NodeExpandVolume(
	ctx context.Context,
	req *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	if req.GetVolumeId() == "" || req.GetVolumePath() == "" {
		return nil, invalid("volume id or path is missing")
	}
	if _, err := n.get(req.GetVolumeId()); err != nil {
		return nil, err
	}
	v, err := n.publisher.GrowStaged(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &csi.NodeExpandVolumeResponse{CapacityBytes: v.Size}, nil
}
