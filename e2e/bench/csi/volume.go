package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// volume is one on its way through its life.
type volume struct {
	driver *driver
	kind   kind
	name   string
	size   int64
	source *csi.VolumeContentSource

	id     string // once it is created
	stage  string
	target string
}

func (d *driver) volume(name string, k kind, size int64) *volume {
	return &volume{
		driver: d,
		kind:   k,
		name:   name,
		size:   size,
		stage:  filepath.Join(d.dir, "kubelet/stage", name),
		target: filepath.Join(d.dir, "kubelet/pods", name, "mount"),
	}
}

// step is a call in the life of a volume.
type step struct {
	name string
	do   func(*volume, context.Context) error
}

// steps are the life of a volume, in their order.
var steps = []step{
	{"create", (*volume).create},
	{"stage", (*volume).nodeStage},
	{"publish", (*volume).publish},
	{"unpublish", (*volume).unpublish},
	{"unstage", (*volume).unstage},
	{"delete", (*volume).delete},
}

// growing are the steps of a volume that is made larger while it is in use.
var growing = slices.Insert(slices.Clone(steps), 3, step{"expand", (*volume).expand})

// times are how long steps took, by their names.
type times map[string][]time.Duration

func (t times) add(other times) {
	for name, took := range other {
		t[name] = append(t[name], took...)
	}
}

// median is that of a step, "-" if it was never done.
func (t times) median(name string) string {
	if len(t[name]) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f ms", milliseconds(t[name]))
}

// do does something and notes how long it took.
func (t times) do(name string, f func() error) error {
	began := time.Now()
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	t[name] = append(t[name], time.Since(began))
	return nil
}

// life takes the volume through its steps and returns how long each took.
func (v *volume) life(ctx context.Context, steps []step) (times, error) {
	took := times{}
	if err := v.prepare(); err != nil {
		return took, err
	}
	for _, s := range steps {
		if err := took.do(s.name, func() error { return s.do(v, ctx) }); err != nil {
			return took, err
		}
	}
	return took, nil
}

// prepare makes the directories that kubelet makes.
func (v *volume) prepare() error {
	return errors.Join(os.MkdirAll(v.stage, 0o755), os.MkdirAll(filepath.Dir(v.target), 0o755))
}

// appear creates, stages and publishes the volume.
func (v *volume) appear(ctx context.Context) error {
	_, err := v.life(ctx, steps[:3])
	return err
}

// disappear undoes appear, as far as that came.
func (v *volume) disappear(ctx context.Context) error {
	if v.id == "" {
		return nil
	}
	return errors.Join(v.unpublish(ctx), v.unstage(ctx), v.delete(ctx))
}

func (v *volume) capability() *csi.VolumeCapability {
	c := &csi.VolumeCapability{AccessMode: &csi.VolumeCapability_AccessMode{
		Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
	}}
	if v.kind.block {
		c.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	} else {
		mount := &csi.VolumeCapability_MountVolume{FsType: v.kind.fsType}
		c.AccessType = &csi.VolumeCapability_Mount{Mount: mount}
	}
	return c
}

// create creates a volume of 1 MiB and returns its ID.
func (d *driver) create(ctx context.Context, name string) (string, error) {
	v := d.volume(name, kind{}, 1<<20)
	err := v.create(ctx)
	return v.id, err
}

func (v *volume) controller() csi.ControllerClient { return csi.NewControllerClient(v.driver.conn) }

func (v *volume) node() csi.NodeClient { return csi.NewNodeClient(v.driver.conn) }

func (v *volume) create(ctx context.Context) error {
	response, err := v.controller().CreateVolume(ctx, &csi.CreateVolumeRequest{
		Name:                v.name,
		CapacityRange:       &csi.CapacityRange{RequiredBytes: v.size},
		VolumeCapabilities:  []*csi.VolumeCapability{v.capability()},
		Parameters:          v.kind.parameters,
		VolumeContentSource: v.source,
	})
	v.id = response.GetVolume().GetVolumeId()
	return err
}

func (v *volume) nodeStage(ctx context.Context) error {
	_, err := v.node().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          v.id,
		StagingTargetPath: v.stage,
		VolumeCapability:  v.capability(),
		Secrets:           v.kind.secrets,
	})
	return err
}

func (v *volume) publish(ctx context.Context) error {
	_, err := v.node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId:          v.id,
		StagingTargetPath: v.stage,
		TargetPath:        v.target,
		VolumeCapability:  v.capability(),
	})
	return err
}

// expand makes the volume a quarter larger, and what pods have of it.
func (v *volume) expand(ctx context.Context) error {
	v.size += max(v.size/4, 1<<20)
	capacity := &csi.CapacityRange{RequiredBytes: v.size}
	response, err := v.controller().ControllerExpandVolume(ctx, &csi.ControllerExpandVolumeRequest{
		VolumeId:         v.id,
		CapacityRange:    capacity,
		VolumeCapability: v.capability(),
	})
	if err != nil || !response.GetNodeExpansionRequired() {
		return err
	}

	_, err = v.node().NodeExpandVolume(ctx, &csi.NodeExpandVolumeRequest{
		VolumeId:          v.id,
		VolumePath:        v.target,
		StagingTargetPath: v.stage,
		CapacityRange:     capacity,
		VolumeCapability:  v.capability(),
	})
	return err
}

// snapshot returns the ID of a snapshot of the volume.
func (v *volume) snapshot(ctx context.Context, name string) (id string, err error) {
	response, err := v.controller().CreateSnapshot(ctx, &csi.CreateSnapshotRequest{
		Name:           name,
		SourceVolumeId: v.id,
	})
	return response.GetSnapshot().GetSnapshotId(), err
}

func (v *volume) deleteSnapshot(ctx context.Context, id string) error {
	_, err := v.controller().DeleteSnapshot(ctx, &csi.DeleteSnapshotRequest{SnapshotId: id})
	return err
}

func (v *volume) unpublish(ctx context.Context) error {
	request := &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target}
	_, err := v.node().NodeUnpublishVolume(ctx, request)
	return err
}

func (v *volume) unstage(ctx context.Context) error {
	request := &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.stage}
	_, err := v.node().NodeUnstageVolume(ctx, request)
	return err
}

func (v *volume) delete(ctx context.Context) error {
	_, err := v.controller().DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: v.id})
	return err
}
