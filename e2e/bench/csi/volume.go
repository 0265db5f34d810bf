package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
)

// volume is one on its way through its life.
type volume struct {
	driver *driver
	name   string
	id     string // once it is created
	stage  string
	target string
}

// steps are the life of a volume, in their order.
var steps = []struct {
	name string
	do   func(*volume, context.Context) error
}{
	{"create", (*volume).create},
	{"stage", (*volume).nodeStage},
	{"publish", (*volume).publish},
	{"unpublish", (*volume).unpublish},
	{"unstage", (*volume).unstage},
	{"delete", (*volume).delete},
}

// life takes one volume from creation to deletion and returns how long each step took.
func (d *driver) life(ctx context.Context, name string) ([]time.Duration, error) {
	v := &volume{
		driver: d,
		name:   name,
		stage:  filepath.Join(d.dir, "kubelet/stage", name),
		target: filepath.Join(d.dir, "kubelet/pods", name, "mount"),
	}

	// As kubelet does.
	for _, path := range []string{v.stage, filepath.Dir(v.target)} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, err
		}
	}

	var times []time.Duration
	for _, step := range steps {
		began := time.Now()
		if err := step.do(v, ctx); err != nil {
			return times, err
		}

		times = append(times, time.Since(began))
	}

	return times, nil
}

func capability() *csi.VolumeCapability {
	return &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{
			Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER,
		},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
	}
}

// create creates a volume of 1 MiB and returns its ID.
func (d *driver) create(ctx context.Context, name string) (string, error) {
	request := &csi.CreateVolumeRequest{
		Name:               name,
		CapacityRange:      &csi.CapacityRange{RequiredBytes: 1 << 20},
		VolumeCapabilities: []*csi.VolumeCapability{capability()},
	}
	response, err := csi.NewControllerClient(d.conn).CreateVolume(ctx, request)
	return response.GetVolume().GetVolumeId(), err
}

func (v *volume) create(ctx context.Context) (err error) {
	v.id, err = v.driver.create(ctx, v.name)
	return err
}

func (v *volume) node() csi.NodeClient { return csi.NewNodeClient(v.driver.conn) }

func (v *volume) nodeStage(ctx context.Context) error {
	_, err := v.node().NodeStageVolume(ctx, &csi.NodeStageVolumeRequest{
		VolumeId:          v.id,
		StagingTargetPath: v.stage,
		VolumeCapability:  capability(),
	})
	return err
}

func (v *volume) publish(ctx context.Context) error {
	_, err := v.node().NodePublishVolume(ctx, &csi.NodePublishVolumeRequest{
		VolumeId:          v.id,
		StagingTargetPath: v.stage,
		TargetPath:        v.target,
		VolumeCapability:  capability(),
	})
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
	request := &csi.DeleteVolumeRequest{VolumeId: v.id}
	_, err := csi.NewControllerClient(v.driver.conn).DeleteVolume(ctx, request)
	return err
}
