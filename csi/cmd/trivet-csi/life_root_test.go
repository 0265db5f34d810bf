package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
)

const (
	firstSize   = 16 << 20
	secondSize  = 32 << 20 // of those that grow
	contentSize = 256 << 10
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
	secret  string // its key follows from that; "": it is not encrypted
	copies  bool   // it has a snapshot, which becomes another volume, and a clone
	grows   bool   // while it is in use
	grown   bool   // before it is used
	content string // what is in it follows from this
	size    int64  // bytes that it is made with
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
		content:    name,
		size:       firstSize,
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
		CapacityRange:       &csi.CapacityRange{RequiredBytes: l.size},
		VolumeCapabilities:  []*csi.VolumeCapability{l.capability()},
		Parameters:          map[string]string{"backend": l.backend, "encryption": l.encryption()},
		VolumeContentSource: l.source,
	}, grpc.WaitForReady(true))
	l.id = resp.GetVolume().GetVolumeId()
	return err
}

func (l *life) encryption() string {
	if l.secret == "" {
		return "none"
	}
	return "fscrypt"
}

func (l *life) stage(ctx context.Context) error {
	_, err := l.node.NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          l.id,
		StagingTargetPath: l.stagePath(),
		VolumeCapability:  l.capability(),
		Secrets:           map[string]string{"encryptionKey": l.secret},
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

// file is where the content of the volume is.
func (l *life) file() string {
	if l.block {
		return l.target()
	}
	return filepath.Join(l.target(), "content")
}

// bytes are the content of the volume.
func (l *life) bytes() []byte {
	data := make([]byte, contentSize)
	_, _ = mathrand.NewChaCha8(sha256.Sum256([]byte(l.content))).Read(data)
	return data
}

func (l *life) write(context.Context) error {
	f, err := os.OpenFile(l.file(), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()

	// A snapshot has what a disk has: of an image that is what was synced.
	if _, err := f.Write(l.bytes()); err != nil {
		return err
	}
	return f.Sync()
}

var larger = &csi.CapacityRange{RequiredBytes: secondSize}

// expand makes the volume larger, but for what is in it.
func (l *life) expand(ctx context.Context) error {
	_, err := l.controller.ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId:         l.id,
		CapacityRange:    larger,
		VolumeCapability: l.capability(),
	}, grpc.WaitForReady(true))
	return err
}

func (l *life) growUnused(ctx context.Context) error {
	if !l.grown {
		return nil
	}
	return l.expand(ctx)
}

// grow makes the volume larger, and checks that it stays so.
func (l *life) grow(ctx context.Context) error {
	if !l.grows {
		return nil
	}
	if err := l.expand(ctx); err != nil {
		return err
	}
	_, err := l.node.NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId:         l.id,
		VolumePath:       l.target(),
		CapacityRange:    larger,
		VolumeCapability: l.capability(),
	}, grpc.WaitForReady(true))
	return err
}

func (l *life) checkSize(ctx context.Context) error {
	if !l.grows && !l.grown {
		return nil
	}
	stats, err := l.node.NodeGetVolumeStats(ctx, &csi.NodeGetVolumeStatsRequest{
		VolumeId:   l.id,
		VolumePath: l.target(),
	}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for _, usage := range stats.GetUsage() {
		// Of ext4 it is less what that keeps for itself.
		right := usage.GetTotal() == secondSize || l.grown && usage.GetTotal() > firstSize
		if usage.GetUnit() == csi.VolumeUsage_BYTES && !right {
			return fmt.Errorf("volume %s has %d bytes, not the %d that it was given",
				l.name, usage.GetTotal(), int64(secondSize))
		}
	}
	return nil
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
	return l.from("from-", &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Snapshot{
		Snapshot: &csi.VolumeContentSource_SnapshotSource{SnapshotId: l.snapshotID},
	}})
}

// cloned is a volume with what the volume has.
func (l *life) cloned() *life {
	return l.from("clone-", &csi.VolumeContentSource{Type: &csi.VolumeContentSource_Volume{
		Volume: &csi.VolumeContentSource_VolumeSource{VolumeId: l.id},
	}})
}

func (l *life) from(prefix string, source *csi.VolumeContentSource) *life {
	r := *l
	r.name, r.copies, r.grows, r.grown = prefix+l.name, false, false, false
	r.source = source
	if l.grows || l.grown {
		r.size = secondSize
	}
	return &r
}

// read checks that the volume has what was written to it, or to the one that it began as a copy of.
func (l *life) read(context.Context) error {
	f, err := os.Open(l.file())
	if err != nil {
		return err
	}
	defer f.Close()
	got := make([]byte, contentSize)
	if _, err := io.ReadFull(f, got); err != nil {
		return fmt.Errorf("content of volume %s: %w", l.name, err)
	}
	if !bytes.Equal(got, l.bytes()) {
		return fmt.Errorf("volume %s holds something else than was written to it", l.name)
	}
	return nil
}

// copy is the life of a snapshot, and of a volume that is restored from it and outlives it; then of a clone.
func (l *life) copy(ctx context.Context) error {
	if !l.copies {
		return nil
	}
	if err := insist(ctx, l.snapshot); err != nil {
		return err
	}
	r, c := l.restored(), l.cloned()
	return doAll(ctx, []func(context.Context) error{
		r.create, l.deleteSnapshot, r.stage, r.publish, r.read, r.unpublish, r.unstage, r.delete,
		c.create, c.stage, c.publish, c.read, c.unpublish, c.unstage, c.delete,
	})
}

func (l *life) run(ctx context.Context) error {
	err := doAll(ctx, []func(context.Context) error{
		l.create, l.growUnused, l.stage, l.publish, l.write, l.grow, l.checkSize,
	})
	if err == nil {
		err = l.copy(ctx)
	}
	if err == nil {
		err = doAll(ctx, []func(context.Context) error{
			l.unpublish, l.publish, l.read, l.unpublish, l.unstage, l.delete,
		})
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
