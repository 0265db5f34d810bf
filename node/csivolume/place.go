package csivolume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/node/csivolume/record"
	"github.com/trivet-node/trivet/node/csivolume/staging"
)

// plugin is the directory of CSI volumes in that of a pod.
const plugin = "kubernetes.io~csi"

// place is where a volume of a pod is on the node, and its records.
type place struct {
	record.Record

	pod types.UID

	// dir is the directory of the pod's record. It is removed last.
	dir string

	// target is where the driver publishes the volume.
	target string

	// link is the pod's link to the target of a block volume: while it exists the pod uses the volume. It is
	// empty for file systems.
	link string

	// staging is where the volume is staged for all pods of the node.
	staging staging.Place

	// mapped is where kubelet binds a block volume to once more. It is empty for file systems.
	mapped string
}

// layout is where volumes of pods are, below kubelet's root directory.
type layout struct{ root string }

// place computes the paths, kubelet's: for block volumes everything is below
// plugins/kubernetes.io/csi/volumeDevices.
func (l layout) place(pod types.UID, spec, driver, handle string, block bool) place {
	p := place{Record: record.Record{SpecName: spec, Handle: handle, Driver: driver}, pod: pod}
	name := staging.SpecDir(spec)
	if block {
		devices := staging.Devices(l.root)
		p.link = filepath.Join(l.volumesOf(pod, true), name)
		p.dir = filepath.Join(devices, name, "data")
		p.target = filepath.Join(devices, "publish", name, string(pod))
		p.mapped = filepath.Join(devices, name, "dev", string(pod))
		p.staging = staging.OfBlock(l.root, spec, driver, handle)
		return p
	}

	p.dir = filepath.Join(l.volumesOf(pod, false), name)
	p.target = filepath.Join(p.dir, "mount")
	p.staging = staging.Of(l.root, driver, handle)
	return p
}

// volumesOf is the directory of the pod's volumes of CSI drivers, or of its links to devices.
func (l layout) volumesOf(pod types.UID, block bool) string {
	kind := "volumes"
	if block {
		kind = "volumeDevices"
	}
	return filepath.Join(l.root, "pods", string(pod), kind, plugin)
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

// begin records that the pod will have the volume. From here on Teardown finds it. It needs the lock of the
// staging: what is there of another block volume has to be unstaged first.
func (p *place) begin(node string) error {
	p.Node = node
	p.AttachmentID = attachmentName(p.Handle, p.Driver, node)
	p.Ready = ""
	p.Mounted = ""

	if p.link != "" {
		if err := p.staging.Check(); err != nil {
			return err
		}
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

// used reports whether a pod of this node has a volume that is staged, by what is in the pods' directories.
// Several persistent volumes may have one handle, and share its staging then. What cannot be read is an
// error: a volume that may be used is not unstaged.
func (l layout) used(s staging.Place) (bool, error) { return l.usedBeside(s, &place{}) }

// usedBeside is used without the use that is one pod's own.
func (l layout) usedBeside(s staging.Place, own *place) (bool, error) {
	pods, err := names(filepath.Join(l.root, "pods"))
	if err != nil {
		return false, fmt.Errorf("look for users of volume %s: %w", s.Handle, err)
	}

	for _, pod := range pods {
		used, err := l.usedBy(types.UID(pod), s, own)
		if err != nil {
			return false, fmt.Errorf("look whether pod %s uses volume %s: %w", pod, s.Handle, err)
		}
		if used {
			return true, nil
		}
	}

	return false, nil
}

// usedBy reports whether a pod has a volume that is staged, other than as its own.
func (l layout) usedBy(pod types.UID, s staging.Place, own *place) (bool, error) {
	if s.Spec != "" {
		return l.usedAsBlock(pod, s, own)
	}

	dir := l.volumesOf(pod, false)
	volumes, err := names(dir)
	if err != nil {
		return false, err
	}

	for _, volume := range volumes {
		at := filepath.Join(dir, volume)
		if at == own.dir {
			continue
		}

		r, found, err := record.Read(filepath.Join(at, record.File))
		if err != nil {
			return false, err
		}
		if found && r.Driver == s.Driver && r.Handle == s.Handle {
			return true, nil
		}
	}

	return false, nil
}

// usedAsBlock is usedBy for a block volume: the pod has a link of its name, and no record of another volume.
// kubelet's pods have no record of their own.
func (l layout) usedAsBlock(pod types.UID, s staging.Place, own *place) (bool, error) {
	p := l.place(pod, s.Spec, s.Driver, s.Handle, true)
	_, err := os.Lstat(p.link)
	if isAbsent(err) || err == nil && p.link == own.link {
		return false, nil
	}
	if err != nil {
		return false, err
	}

	for _, file := range []string{p.readyFile(), filepath.Join(p.dir, record.File)} {
		r, found, err := record.Read(file)
		if err != nil {
			return false, err
		}
		if found {
			return r.Driver == s.Driver && r.Handle == s.Handle, nil
		}
	}

	return true, nil
}

// ofPods returns the volumes that pods have, by their records. skip is called with those that
// cannot be read.
func (l layout) ofPods(skip func(pod, spec string, err error)) ([]place, error) {
	pods, err := names(filepath.Join(l.root, "pods"))
	if err != nil {
		return nil, fmt.Errorf("look for volumes of pods: %w", err)
	}

	var out []place
	for _, pod := range pods {
		for _, block := range []bool{false, true} {
			specs, err := names(l.volumesOf(types.UID(pod), block))
			if err != nil {
				return nil, fmt.Errorf("look for volumes of pod %s: %w", pod, err)
			}

			for _, spec := range specs {
				p, found, err := l.recorded(types.UID(pod), spec, block)
				if err != nil {
					skip(pod, spec, err)
				}
				if found {
					out = append(out, p)
				}
			}
		}
	}

	return out, nil
}

// recorded returns the place of a volume by its record, if there is one.
func (l layout) recorded(pod types.UID, spec string, block bool) (p place, found bool, err error) {
	// The directory of the record depends neither on driver nor on handle, which only the record has.
	p = l.place(pod, spec, "", "", block)
	r, found, err := record.Read(filepath.Join(p.dir, record.File))
	if err != nil || !found {
		return p, false, err
	}

	p = l.place(pod, spec, r.Driver, r.Handle, block)
	p.Record = r
	return p, true, nil
}

// names are those of the entries of a directory that need not be there: most pods have no volume of a driver,
// and some go meanwhile.
func names(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !isAbsent(err) {
		return nil, err
	}

	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out, nil
}

// isAbsent reports whether an error says that there is nothing of that path.
func isAbsent(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) }
