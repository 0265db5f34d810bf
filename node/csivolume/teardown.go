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
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/removal"
	"github.com/trivet-node/trivet/node/csiplugin"
)

// Teardown unpublishes the pod's CSI volumes, all at the same time, and unstages those that no other pod on
// the node has. It works from what is on disk alone, and is repeated after an error.
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
	return errors.Join(errs...)
}

// ofPod finds the pod's volumes on disk.
func (m *Mounter) ofPod(pod types.UID) ([]place, error) {
	var places []place
	for _, block := range []bool{false, true} {
		kind := "volumes"
		if block {
			kind = "volumeDevices"
		}

		entries, err := os.ReadDir(filepath.Join(m.cfg.Root, "pods", string(pod), kind, plugin))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list CSI volumes of pod %s: %w", pod, err)
		}

		for _, e := range entries {
			p, found, err := m.recorded(pod, e.Name(), block)
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
	r, found, err := readRecord(filepath.Join(p.dir, dataFile))
	if err != nil {
		return place{}, false, err
	}
	if !found {
		return place{}, false, remove(&p)
	}

	p = m.place(pod, spec, r.Driver, r.Handle, block)
	p.record = r
	return p, true, nil
}

// teardown takes one volume from the pod. The pod's record goes last, so that an interrupted teardown is
// found and repeated.
func (m *Mounter) teardown(ctx context.Context, p *place) error {
	driver, err := m.cfg.Drivers.Driver(p.Driver)
	if err != nil {
		return fmt.Errorf("unpublish volume %s: %w", p.SpecName, err)
	}
	if err := unpublish(ctx, driver, p); err != nil {
		return err
	}

	unlock, err := m.staging.Lock(ctx, stagingKey(p.Driver, p.Handle))
	if err != nil {
		return fmt.Errorf("unstage volume %s: %w", p.SpecName, err)
	}
	defer unlock()

	// The last pod's teardown unstages. The record that holds the volume for this pod is still there.
	shared, err := m.usedByOthers(p)
	if err != nil {
		return err
	}

	if !shared && p.Lifecycle != string(storagev1.VolumeLifecycleEphemeral) &&
		driver.Can(csi.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME) {
		if err := unstage(ctx, driver, p); err != nil {
			return err
		}
	}

	// Pods share the directory of a block volume.
	if !shared && p.link != "" {
		if err := removal.Tree(filepath.Dir(p.dir)); err != nil {
			return err
		}
	}

	return remove(p)
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

// unstage has the driver take the volume from the node, and removes the record of the staging. A driver that
// was never asked to stage it, or has refused, is not called.
func unstage(ctx context.Context, driver *csiplugin.Driver, p *place) error {
	if is, err := p.mayBeStaged(); !is || err != nil {
		return err
	}

	ctx, cancel := context.WithTimeout(ctx, rpcTimeout)
	defer cancel()

	request := &csi.NodeUnstageVolumeRequest{VolumeId: p.Handle, StagingTargetPath: p.staging}
	_, err := driver.Node.NodeUnstageVolume(ctx, request)
	if err != nil && status.Code(err) != codes.NotFound {
		return fmt.Errorf("UnmountDevice: NodeUnstageVolume of %s: %w", p.Handle, err)
	}

	return p.endStage()
}

// usedByOthers reports whether another pod of this node has the volume, or this one by another name, by what
// is in the pods' directories. Several persistent volumes may have one handle, and share its staging then.
func (m *Mounter) usedByOthers(p *place) (bool, error) {
	pods, err := os.ReadDir(filepath.Join(m.cfg.Root, "pods"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, fmt.Errorf("look for other users of volume %s: %w", p.SpecName, err)
	}

	for _, other := range pods {
		theirs := m.place(types.UID(other.Name()), p.SpecName, p.Driver, p.Handle, p.link != "")
		used, err := theirs.sharesWith(p)
		if used || err != nil {
			return used, err
		}
	}

	return false, nil
}

// sharesWith reports whether the pod of a place has the volume of another place, there or by another name.
func (p *place) sharesWith(other *place) (bool, error) {
	if other.link != "" {
		_, err := os.Lstat(p.link)
		return err == nil && p.link != other.link, nil
	}

	volumes, err := os.ReadDir(filepath.Dir(p.dir))
	if err != nil {
		// Most pods have no volume of a driver, and some go meanwhile.
		return false, nil
	}

	for _, v := range volumes {
		dir := filepath.Join(filepath.Dir(p.dir), v.Name())
		if dir == other.dir {
			continue
		}

		r, found, err := readRecord(filepath.Join(dir, dataFile))
		if err != nil {
			return false, err
		}
		if found && r.Driver == other.Driver && r.Handle == other.Handle {
			return true, nil
		}
	}

	return false, nil
}

// remove deletes what the pod has of a place, the record included.
func remove(p *place) error {
	if p.link == "" {
		return removal.Tree(p.dir)
	}
	for _, path := range []string{p.readyFile(), p.link} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget block volume %s: %w", p.SpecName, err)
		}
	}
	return nil
}
