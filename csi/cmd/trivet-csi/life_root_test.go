package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

// life is a volume on its way from creation to deletion. It repeats each step until it is acknowledged, as
// kubelet and provisioners do.
type life struct {
	p          *process
	controller csi.ControllerClient
	node       csi.NodeClient

	name    string
	backend string
	fsType  string
	block   bool
	copies  bool // it has a snapshot, which becomes another volume
	id      string

	snapshotID string
	source     *csi.VolumeContentSource
}

func (p *process) life(name string) *life {
	return &life{
		p:          p,
		controller: csi.NewControllerClient(p.conn),
		node:       csi.NewNodeClient(p.conn),
		name:       name,
		backend:    "btrfs",
	}
}

func (l *life) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{
			Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		},
	}
	if l.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		mount := &csi.VolumeCapability_MountVolume{FsType: l.fsType}
		c.AccessType = &csi.VolumeCapability_Mount{Mount: mount}
	}
	return c
}

func (l *life) stagePath() string { return filepath.Join(l.p.dir, "kubelet/stage", l.name) }
func (l *life) target() string    { return filepath.Join(l.p.dir, "kubelet/pods", l.name, "mount") }

func (l *life) create(ctx context.Context) error {
	resp, err := l.controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:                l.name,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: 16 << 20},
		VolumeCapabilities:  []*csi.VolumeCapability{l.capability()},
		Parameters:          map[string]string{"backend": l.backend},
		VolumeContentSource: l.source,
	}, grpc.WaitForReady(true))
	l.id = resp.GetVolume().GetVolumeId()
	return err
}

func (l *life) stage(ctx context.Context) error {
	_, err := l.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          l.id,
		StagingTargetPath: l.stagePath(),
		VolumeCapability:  l.capability(),
	}, grpc.WaitForReady(true))
	return err
}

func (l *life) publish(ctx context.Context) error {
	_, err := l.node.NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId:          l.id,
		StagingTargetPath: l.stagePath(),
		TargetPath:        l.target(),
		VolumeCapability:  l.capability(),
	}, grpc.WaitForReady(true))
	return err
}

func (l *life) write(context.Context) error {
	file := l.target()
	if !l.block {
		file = filepath.Join(file, "sign")
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	// A snapshot has what a disk has: of an image that is what was synced.
	if _, err := f.WriteString(l.name); err != nil {
		return err
	}
	return f.Sync()
}

func (l *life) unpublish(ctx context.Context) error {
	request := &csi.NodeUnpublishVolumeRequest{VolumeId: l.id, TargetPath: l.target()}
	_, err := l.node.NodeUnpublishVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

func (l *life) unstage(ctx context.Context) error {
	request := &csi.NodeUnstageVolumeRequest{VolumeId: l.id, StagingTargetPath: l.stagePath()}
	_, err := l.node.NodeUnstageVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

func (l *life) delete(ctx context.Context) error {
	request := &csi.DeleteVolumeRequest{VolumeId: l.id}
	_, err := l.controller.DeleteVolume(ctx, request, grpc.WaitForReady(true))
	return err
}

func (l *life) snapshot(ctx context.Context) error {
	resp, err := l.controller.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
		Name:           "of-" + l.name,
		SourceVolumeId: l.id,
	}, grpc.WaitForReady(true))
	l.snapshotID = resp.GetSnapshot().GetSnapshotId()
	return err
}

func (l *life) deleteSnapshot(ctx context.Context) error {
	request := &csi.DeleteSnapshotRequest{SnapshotId: l.snapshotID}
	_, err := l.controller.DeleteSnapshot(ctx, request, grpc.WaitForReady(true))
	return err
}

// restored is a volume with what the snapshot has.
func (l *life) restored() *life {
	r := *l
	r.name, r.copies = "from-"+l.name, false
	r.source = &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: l.snapshotID},
	}}
	return &r
}

// read checks that the volume has what was written to the one that it was restored from.
func (l *life) read(context.Context) error {
	file, want := l.target(), strings.TrimPrefix(l.name, "from-")
	if !l.block {
		file = filepath.Join(file, "sign")
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(f, got); err != nil || string(got) != want {
		return fmt.Errorf("volume %s holds %q, %w", l.name, got, err)
	}
	return nil
}

// copy is the life of a snapshot, and of a volume that is restored from it and outlives it.
func (l *life) copy(ctx context.Context) error {
	if !l.copies {
		return nil
	}
	if err := insist(ctx, l.snapshot); err != nil {
		return err
	}
	r := l.restored()
	return doAll(ctx, []func(context.Context) error{
		r.create, l.deleteSnapshot, r.stage, r.publish, r.read, r.unpublish, r.unstage, r.delete,
	})
}

func (l *life) run(ctx context.Context) error {
	err := doAll(ctx, []func(context.Context) error{l.create, l.stage, l.publish, l.write})
	if err == nil {
		err = l.copy(ctx)
	}
	if err == nil {
		err = doAll(ctx, []func(context.Context) error{l.unpublish, l.unstage, l.delete})
	}
	if err != nil {
		return fmt.Errorf("volume %s (%s): %w", l.name, l.id, err)
	}
	return nil
}

func doAll(ctx context.Context, steps []func(context.Context) error) error {
	for i, step := range steps {
		if err := insist(ctx, step); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
	}
	return nil
}

// insist repeats a step until it succeeds or ctx ends.
func insist(ctx context.Context, step func(context.Context) error) error {
	var last error
	for ctx.Err() == nil {
		if last = step(ctx); last == nil {
			return nil
		}
	}
	return errors.Join(last, ctx.Err())
}
