package csivolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume/mapped"
	"github.com/trivet-node/trivet/node/csivolume/record"
)

// Teardown unpublishes the pod's CSI volumes, all at the same time. Those that no other pod on the node has
// are unstaged afterwards, which the pod does not wait for. It works from what is on disk alone, and is
// repeated after an error.
func (m *Mounter) Teardown(ctx context.Context, pod types.UID) error {
	places, err := m.dirs.ofPod(pod)
	if err != nil {
		return err
	}

	errs := make([]error, len(places))
	var running sync.WaitGroup
	for i := range places {
		running.Go(func() { errs[i] = m.teardown(ctx, &places[i]) })
	}

	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}

	m.cfg.InUse.Release(string(pod))
	return nil
}

// ofPod finds the pod's volumes on disk. A directory without a record, on which nothing was published yet, is
// removed.
func (l layout) ofPod(pod types.UID) ([]place, error) {
	var places []place
	for _, block := range []bool{false, true} {
		specs, err := names(l.volumesOf(pod, block))
		if err != nil {
			return nil, fmt.Errorf("list CSI volumes of pod %s: %w", pod, err)
		}

		for _, spec := range specs {
			p, found, err := l.recorded(pod, spec, block)
			if err == nil && !found {
				err = remove(&p)
			}
			if err != nil {
				return nil, err
			}
			if found {
				places = append(places, p)
			}
		}
	}

	return places, nil
}

// teardown takes one volume from the pod. The pod's record goes last, so that an interrupted teardown is
// found and repeated. From then on the volume may be unstaged.
func (m *Mounter) teardown(ctx context.Context, p *place) error {
	driver, err := m.cfg.Drivers.Driver(p.Driver)
	if err != nil {
		return fmt.Errorf("unpublish volume %s: %w", p.SpecName, err)
	}
	if err := mapped.Remove(p.mapped); err != nil {
		return fmt.Errorf("unpublish volume %s: %w", p.SpecName, err)
	}
	if err := unpublish(ctx, driver, p); err != nil {
		return err
	}

	// The record may be gone when something else is not.
	err = remove(p)
	if p.Lifecycle != string(ephemeral) {
		m.unstager.Look(p.staging)
	}
	return err
}

// unpublish has the driver take the volume from the pod's target. A driver that does not know the volume has
// nothing to take.
func unpublish(ctx context.Context, driver *csiplugin.Driver, p *place) error {
	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	request := &csi.NodeUnpublishVolumeRequest{VolumeId: p.Handle, TargetPath: p.target}
	_, err := driver.Node.NodeUnpublishVolume(ctx, request)
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("NodeUnpublishVolume of %s: %w", p.Handle, err)
	}

	return removal.Tree(p.target)
}

// remove deletes what the pod has of a place, and at last what says that it has it: the record, or the link.
func remove(p *place) error {
	if p.link == "" {
		if err := record.RemoveDir(p.dir); err != nil {
			return fmt.Errorf("forget volume %s: %w", p.SpecName, err)
		}
		return nil
	}

	for _, path := range []string{p.readyFile(), p.link} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget block volume %s: %w", p.SpecName, err)
		}
	}
	return nil
}
