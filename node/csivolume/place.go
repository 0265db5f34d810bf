package csivolume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/csivolume/record"
	"github.com/trivet-node/trivet/node/csivolume/staging"
)

// plugin is the directory of CSI volumes in that of a pod.
const plugin = "kubernetes.io~csi"

// place is where a volume of a pod is on the node, and its records.
type place struct {
	record.Record

	// dir is the directory of the pod's record. It is removed last.
	dir string

	// target is where the driver publishes the volume.
	target string

	// link is the pod's link to the target of a block volume: while it exists the pod uses the volume. It is
	// empty for file systems.
	link string

	// staging is where the volume is staged for all pods of the node.
	staging staging.Place

	// mapped is where kubelet binds a block volume to once more.
	mapped string
}

// place computes the paths, kubelet's: for block volumes everything is below
// plugins/kubernetes.io/csi/volumeDevices.
func (m *Mounter) place(pod types.UID, spec, driver, handle string, block bool) place {
	p := place{Record: record.Record{SpecName: spec, Handle: handle, Driver: driver}}
	name := staging.SpecDir(spec)
	if block {
		devices := staging.Devices(m.cfg.Root)
		p.link = filepath.Join(m.cfg.Root, "pods", string(pod), "volumeDevices", plugin, name)
		p.dir = filepath.Join(devices, name, "data")
		p.target = filepath.Join(devices, "publish", name, string(pod))
		p.mapped = filepath.Join(devices, name, "dev", string(pod))
		p.staging = staging.OfBlock(m.cfg.Root, spec, driver, handle)
		return p
	}

	p.dir = filepath.Join(m.cfg.Root, "pods", string(pod), "volumes", plugin, name)
	p.target = filepath.Join(p.dir, "mount")
	p.staging = staging.Of(m.cfg.Root, driver, handle)
	return p
}

// readyFile is the record of the pod's own state: block volumes share one vol_data.json between pods, so that
// each pod has one more.
func (p *place) readyFile() string {
	if p.link != "" {
		return filepath.Join(p.dir, filepath.Base(p.target)+".json")
	}
	return filepath.Join(p.dir, record.File)
}

// done reports whether the volume was made available in this boot and still is.
func (p *place) done(boot string) (bool, error) {
	r, found, err := record.Read(p.readyFile())
	if !found {
		return false, err
	}
	if r.Handle != p.Handle || r.Driver != p.Driver {
		return false, fmt.Errorf("%s belongs to volume %s of driver %s: tear the pod's volumes down first",
			p.readyFile(), r.Handle, r.Driver)
	}
	return r.Holds(boot, p.target)
}

// begin records that the pod will have the volume. From here on Teardown finds it.
func (p *place) begin(node string) error {
	p.Node = node
	p.AttachmentID = attachmentName(p.Handle, p.Driver, node)
	p.Ready = ""
	p.Mounted = ""

	if p.link != "" {
		if err := os.MkdirAll(filepath.Dir(p.link), 0o750); err != nil {
			return fmt.Errorf("make %s: %w", filepath.Dir(p.link), err)
		}
		if err := os.Symlink(p.target, p.link); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("note block volume: %w", err)
		}
		if err := p.Write(filepath.Join(p.dir, record.File)); err != nil {
			return err
		}
	}

	return p.Write(p.readyFile())
}

// finish records that the pod has the volume.
func (p *place) finish(boot string) error { return p.Finish(boot, p.target, p.readyFile()) }
