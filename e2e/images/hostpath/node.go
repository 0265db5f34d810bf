package main

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// NodeGetCapabilities names the calls.
func (d nodeService) NodeGetCapabilities(
	context.Context, *csi.NodeGetCapabilitiesRequest,
) (*csi.NodeGetCapabilitiesResponse, error) {
	answer := &csi.NodeGetCapabilitiesResponse{}
	for _, kind := range []csi.NodeServiceCapability_RPC_Type{
		csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME,
		csi.NodeServiceCapability_RPC_EXPAND_VOLUME,
		csi.NodeServiceCapability_RPC_GET_VOLUME_STATS,
		csi.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
	} {
		answer.Capabilities = append(answer.Capabilities, &csi.NodeServiceCapability{
			Type: &csi.NodeServiceCapability_Rpc{Rpc: &csi.NodeServiceCapability_RPC{Type: kind}},
		})
	}

	return answer, nil
}

// NodeGetInfo says which node this is.
func (d nodeService) NodeGetInfo(context.Context, *csi.NodeGetInfoRequest) (*csi.NodeGetInfoResponse, error) {
	return &csi.NodeGetInfoResponse{
		NodeId:             d.node,
		MaxVolumesPerNode:  cmp.Or(d.maxAttached, d.maxVolumes),
		AccessibleTopology: d.topology(),
	}, nil
}

// NodeStageVolume records that the volume is staged: there is nothing to mount for the whole node.
func (d nodeService) NodeStageVolume(
	_ context.Context, r *csi.NodeStageVolumeRequest,
) (*csi.NodeStageVolumeResponse, error) {
	if r.GetStagingTargetPath() == "" || r.GetVolumeCapability() == nil {
		return nil, status.Error(codes.InvalidArgument, "the request has no staging path or no capability")
	}

	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}

	if d.attach && !v.Attached {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is not attached", v.ID)
	}

	v.Staged = add(v.Staged, r.GetStagingTargetPath())
	return &csi.NodeStageVolumeResponse{}, d.store.save()
}

// NodeUnstageVolume ends NodeStageVolume, and detaches a block volume's device.
func (d nodeService) NodeUnstageVolume(
	_ context.Context, r *csi.NodeUnstageVolumeRequest,
) (*csi.NodeUnstageVolumeResponse, error) {
	if r.GetStagingTargetPath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no staging path")
	}

	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if len(v.Published) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is published at %v", v.ID, v.Published)
	}

	if err := d.detach(v); err != nil {
		return nil, err
	}

	v.Staged = without(v.Staged, r.GetStagingTargetPath())
	return &csi.NodeUnstageVolumeResponse{}, d.store.save()
}

// NodePublishVolume mounts the volume on the target. One that is the pod's own is made here.
func (d nodeService) NodePublishVolume(
	_ context.Context, r *csi.NodePublishVolumeRequest,
) (*csi.NodePublishVolumeResponse, error) {
	target := r.GetTargetPath()
	if target == "" || r.GetVolumeCapability() == nil {
		return nil, status.Error(codes.InvalidArgument, "the request has no target path or no capability")
	}

	v, err := d.toPublish(r)
	if err != nil {
		return nil, err
	}

	// Published before, and kept so: a repeated call.
	if slices.Contains(v.Published, target) && mounted(target) {
		return &csi.NodePublishVolumeResponse{}, nil
	}

	const one = csi.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	if r.GetVolumeCapability().GetAccessMode().GetMode() == one &&
		len(without(slices.Clone(v.Published), target)) > 0 {
		return nil, status.Errorf(codes.FailedPrecondition, "volume %s is published at %v", v.ID, v.Published)
	}

	source, err := d.source(v)
	if err != nil {
		return nil, err
	}
	if err := makeTarget(target, v.Block); err != nil {
		return nil, err
	}

	// It is recorded first: what is mounted is unmounted, also after a kill.
	v.Published = add(v.Published, target)
	if err := d.store.save(); err != nil {
		return nil, err
	}

	return &csi.NodePublishVolumeResponse{}, bind(source, target, r.GetReadonly())
}

// toPublish is the volume of a request.
func (d nodeService) toPublish(r *csi.NodePublishVolumeRequest) (*volume, error) {
	if r.GetVolumeContext()["csi.storage.k8s.io/ephemeral"] != "true" {
		v, err := d.volume(r.GetVolumeId())
		if err == nil && len(v.Staged) == 0 {
			err = status.Errorf(codes.FailedPrecondition, "volume %s is not staged", v.ID)
		}

		return v, err
	}

	id := r.GetVolumeId()
	if !validID(id) {
		return nil, status.Errorf(codes.InvalidArgument, "volume ID %q", id)
	}
	if v, ok := d.store.Volumes[id]; ok {
		return v, nil
	}

	v := &volume{
		ID:        id,
		Name:      "ephemeral-" + id,
		Size:      minSize,
		Ephemeral: true,
	}

	return v, d.store.create(v, "")
}

// NodeUnpublishVolume unmounts the volume from the target.
func (d nodeService) NodeUnpublishVolume(
	_ context.Context, r *csi.NodeUnpublishVolumeRequest,
) (*csi.NodeUnpublishVolumeResponse, error) {
	target := r.GetTargetPath()
	if target == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no target path")
	}

	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}

	if err := unbind(target); err != nil {
		return nil, err
	}

	v.Published = without(v.Published, target)
	if v.Ephemeral && len(v.Published) == 0 {
		return &csi.NodeUnpublishVolumeResponse{}, d.store.remove(v.ID)
	}

	return &csi.NodeUnpublishVolumeResponse{}, d.store.save()
}

// NodeExpandVolume lets a block volume's device see the size of its file.
func (d nodeService) NodeExpandVolume(
	_ context.Context, r *csi.NodeExpandVolumeRequest,
) (*csi.NodeExpandVolumeResponse, error) {
	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no path")
	}
	if _, err := os.Stat(r.GetVolumePath()); err != nil {
		return nil, status.Errorf(codes.NotFound, "volume %s: %v", v.ID, err)
	}

	if device := d.devices[v.ID]; device != nil {
		if err := unix.IoctlSetInt(int(device.Fd()), unix.LOOP_SET_CAPACITY, 0); err != nil {
			return nil, err
		}
	}

	return &csi.NodeExpandVolumeResponse{CapacityBytes: v.Size}, nil
}

// NodeGetVolumeStats says how much of a volume is used: of the disk that it is on, as its size is not
// enforced.
func (d nodeService) NodeGetVolumeStats(
	_ context.Context, r *csi.NodeGetVolumeStatsRequest,
) (*csi.NodeGetVolumeStatsResponse, error) {
	if r.GetVolumePath() == "" {
		return nil, status.Error(codes.InvalidArgument, "the request has no path")
	}

	v, err := d.volume(r.GetVolumeId())
	if err != nil {
		return nil, err
	}
	if !slices.Contains(append(slices.Clone(v.Published), v.Staged...), r.GetVolumePath()) {
		return nil, status.Errorf(codes.NotFound, "volume %s is not at %s", v.ID, r.GetVolumePath())
	}

	if v.Block {
		usage := &csi.VolumeUsage{Unit: csi.VolumeUsage_BYTES, Total: v.Size}
		return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{usage}}, nil
	}

	var disk unix.Statfs_t
	if err := unix.Statfs(r.GetVolumePath(), &disk); err != nil {
		return nil, err
	}

	block := disk.Frsize
	return &csi.NodeGetVolumeStatsResponse{Usage: []*csi.VolumeUsage{
		{
			Unit:      csi.VolumeUsage_BYTES,
			Total:     int64(disk.Blocks) * block,
			Available: int64(disk.Bavail) * block,
			Used:      int64(disk.Blocks-disk.Bfree) * block,
		},
		{
			Unit:      csi.VolumeUsage_INODES,
			Total:     int64(disk.Files),
			Available: int64(disk.Ffree),
			Used:      int64(disk.Files - disk.Ffree),
		},
	}}, nil
}

// makeTarget makes the directory, or for a device the file, on which a volume is mounted.
func makeTarget(target string, block bool) error {
	if !block {
		return os.MkdirAll(target, 0o750)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}

	f, err := os.OpenFile(target, os.O_CREATE, 0o660)
	if err != nil {
		return err
	}

	return f.Close()
}

func bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return &os.PathError{Op: "mount", Path: target, Err: err}
	}
	if !readOnly {
		return nil
	}

	err := unix.Mount("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
	if err != nil {
		return errors.Join(&os.PathError{Op: "remount", Path: target, Err: err}, unbind(target))
	}

	return nil
}

// unbind unmounts and removes a target; one that is not there is done with.
func unbind(target string) error {
	for {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) {
			break
		}
		if err != nil {
			return &os.PathError{Op: "unmount", Path: target, Err: err}
		}
	}

	// Nothing below it is deleted: if it is not empty, it is not what was made here.
	if err := os.Remove(target); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}

	return nil
}

// mounted reports whether something is mounted on a path: its mount is not its parent's.
func mounted(path string) bool {
	var here, above unix.Statx_t
	at := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_MNT_ID, &here)
	up := unix.Statx(unix.AT_FDCWD, filepath.Dir(path), 0, unix.STATX_MNT_ID, &above)
	return at == nil && up == nil && here.Mnt_id != above.Mnt_id
}
