package csivolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/csiplugin"
	"github.com/trivet-node/trivet/node/csivolume/record"
)

// Teardown unpublishes the pod's CSI volumes, all at the same time. Those that no other pod on the node has
// are unstaged afterwards, which the pod does not wait for. It works from what is on disk alone, and is
// repeated after an error.
func (m *Mounter) Teardown(ctx context.Context, pod types.UID) error {
	places, err := m.ofPod(pod)
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

// ofPod finds the pod's volumes on disk.
func (m *Mounter) ofPod(pod types.UID) ([]place, error) {
	var places []place
	for _, block := range []bool{false, true} {
		specs, err := names(m.volumesOf(pod, block))
		if err != nil {
			return nil, fmt.Errorf("list CSI volumes of pod %s: %w", pod, err)
		}

		for _, spec := range specs {
			p, found, err := m.recorded(pod, spec, block)
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

// recorded returns the place of a volume by its record. Without a record nothing was published on the
// directory yet, and it is removed.
func (m *Mounter) recorded(pod types.UID, spec string, block bool) (p place, found bool, err error) {
	// The directory of the record depends neither on driver nor on handle, which only the record has.
	p = m.place(pod, spec, "", "", block)
	r, found, err := record.Read(filepath.Join(p.dir, record.File))
	if err != nil {
		return place{}, false, err
	}
	if !found {
		return place{}, false, remove(&p)
	}

	p = m.place(pod, spec, r.Driver, r.Handle, block)
	p.Record = r
	return p, true, nil
}

// teardown takes one volume from the pod. The pod's record goes last, so that an interrupted teardown is
// found and repeated. From then on the volume may be unstaged.
func (m *Mounter) teardown(ctx context.Context, p *place) error {
	driver, err := m.cfg.Drivers.Driver(p.Driver)
	if err != nil {
		return fmt.Errorf("unpublish volume %s: %w", p.SpecName, err)
	}
	if err := unpublish(ctx, driver, p); err != nil {
		return err
	}
	if err := remove(p); err != nil {
		return err
	}

	if p.Lifecycle != string(ephemeral) {
		m.unstager.Look(p.staging)
	}
	return nil
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

// remove deletes what the pod has of a place, the record included.
func remove(p *place) error {
	if p.link == "" {
		return removal.Tree(p.dir)
	}
	// The kubelet before has bound the device there, too.
	if err := removeMount(p.mapped); err != nil {
		return fmt.Errorf("forget block volume %s: %w", p.SpecName, err)
	}
	for _, path := range []string{p.readyFile(), p.link} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget block volume %s: %w", p.SpecName, err)
		}
	}
	return nil
}

// removeMount removes a file and what is mounted on it.
func removeMount(path string) error {
	if err := mount.Unmount(path); err != nil {
		return err
	}
	return removal.Tree(path)
}
