package csivolume

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
)

const (
	// plugin is the directory of CSI volumes in that of a pod.
	plugin   = "kubernetes.io~csi"
	dataFile = "vol_data.json"

	// maxRecord bounds the bytes of a vol_data.json that are read; kubelet's have some hundreds.
	maxRecord = 1 << 20
)

// record is a vol_data.json: kubelet's fields, and three of trivet's own, which kubelet ignores. kubelet
// reads every field as a string.
type record struct {
	SpecName     string `json:"specVolID,omitempty"`
	Handle       string `json:"volumeHandle"`
	Driver       string `json:"driverName"`
	Node         string `json:"nodeName,omitempty"`
	AttachmentID string `json:"attachmentID,omitempty"`
	Lifecycle    string `json:"volumeLifecycleMode,omitempty"`

	// Volume is the name of the volume in the pod.
	Volume string `json:"trivetVolume,omitempty"`

	// Ready is the ID of the boot in which the driver's call succeeded, empty before that.
	Ready string `json:"trivetReady,omitempty"`

	// Mounted is "true" if the driver had mounted something by then. Not every driver does.
	Mounted string `json:"trivetMounted,omitempty"`
}

// place is where a volume of a pod is on the node, and its records.
type place struct {
	record

	// dir is the directory of the pod's record. It is removed last.
	dir string

	// target is where the driver publishes the volume.
	target string

	// link is the pod's link to the target of a block volume: while it exists the pod uses the volume. It is
	// empty for file systems.
	link string

	// stageDir is the directory of the record of the staging, which the pods share.
	stageDir string

	// staging is where the driver stages the volume.
	staging string
}

// place computes the paths, kubelet's: for block volumes everything is below
// plugins/kubernetes.io/csi/volumeDevices.
func (m *Mounter) place(pod types.UID, spec, driver, handle string, block bool) place {
	p := place{record: record{SpecName: spec, Handle: handle, Driver: driver}}
	name := strings.ReplaceAll(spec, "/", "~")
	plugins := filepath.Join(m.cfg.Root, "plugins", "kubernetes.io", "csi")
	if block {
		devices := filepath.Join(plugins, "volumeDevices")
		p.link = filepath.Join(m.cfg.Root, "pods", string(pod), "volumeDevices", plugin, name)
		p.dir = filepath.Join(devices, name, "data")
		p.target = filepath.Join(devices, "publish", name, string(pod))
		p.stageDir = filepath.Join(devices, name, "stage")
		p.staging = filepath.Join(devices, "staging", name)
		return p
	}

	p.dir = filepath.Join(m.cfg.Root, "pods", string(pod), "volumes", plugin, name)
	p.target = filepath.Join(p.dir, "mount")
	p.stageDir = filepath.Join(plugins, driver, fmt.Sprintf("%x", sha256.Sum256([]byte(handle))))
	p.staging = filepath.Join(p.stageDir, "globalmount")
	return p
}

// readyFile is the record of the pod's own state: block volumes share one vol_data.json between pods, so that
// each pod has one more.
func (p *place) readyFile() string {
	if p.link != "" {
		return filepath.Join(p.dir, filepath.Base(p.target)+".json")
	}
	return filepath.Join(p.dir, dataFile)
}

// done reports whether the volume was made available in this boot and still is.
func (p *place) done(boot string) (bool, error) {
	r, found, err := readRecord(p.readyFile())
	if !found {
		return false, err
	}
	if r.Handle != p.Handle || r.Driver != p.Driver {
		return false, fmt.Errorf("%s belongs to volume %s of driver %s: tear the pod's volumes down first",
			p.readyFile(), r.Handle, r.Driver)
	}
	return r.still(boot, p.target)
}

// still reports whether what was finished by the record is there: finished in this boot, and the mount that
// was seen at path has not been unmounted since.
func (r *record) still(boot, path string) (bool, error) {
	if r.Ready != boot {
		return false, nil
	}
	if r.Mounted == "" {
		return true, nil
	}
	return mount.Mounted(path)
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
		if err := writeRecord(filepath.Join(p.dir, dataFile), p.record); err != nil {
			return err
		}
	}

	return writeRecord(p.readyFile(), p.record)
}

// finish records that the pod has the volume.
func (p *place) finish(boot string) error {
	return p.record.complete(boot, p.target, p.readyFile())
}

// complete writes the record to a file as one of work that is done, with what is mounted at path now.
func (r record) complete(boot, path, file string) error {
	mounted, err := mount.Mounted(path)
	if err != nil {
		return err
	}

	r.Ready = boot
	if mounted {
		r.Mounted = "true"
	}

	return writeRecord(file, r)
}

// stageRecord is the record of the staging: it belongs to no pod.
func (p *place) stageRecord() record { return record{Handle: p.Handle, Driver: p.Driver} }

// staged reports whether the volume was staged in this boot and still is.
func (p *place) staged(boot string) (bool, error) {
	r, found, err := readRecord(filepath.Join(p.stageDir, dataFile))
	if !found {
		return false, err
	}
	return r.still(boot, p.staging)
}

// beginStage records that the driver is about to stage the volume, and makes the directory for that.
func (p *place) beginStage() error {
	if err := os.MkdirAll(p.staging, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", p.staging, err)
	}
	return writeRecord(filepath.Join(p.stageDir, dataFile), p.stageRecord())
}

// finishStage records that the volume is staged.
func (p *place) finishStage(boot string) error {
	return p.stageRecord().complete(boot, p.staging, filepath.Join(p.stageDir, dataFile))
}

// mayBeStaged reports whether the driver was asked to stage the volume and has neither refused nor undone it.
func (p *place) mayBeStaged() (bool, error) {
	for _, dir := range []string{p.stageDir, p.staging} {
		_, err := os.Lstat(dir)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// endStage removes what is left of a staging that the driver has undone or refused.
func (p *place) endStage() error {
	if err := removal.Tree(p.staging); err != nil {
		return err
	}
	return removal.Tree(p.stageDir)
}

// writeRecord replaces the record in a file. It does without fsync: the mounts that a record describes do not
// survive a power loss, and a record that was lost or torn by it counts as none.
func writeRecord(file string, r record) error {
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return fmt.Errorf("make %s: %w", filepath.Dir(file), err)
	}

	data, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := durable.WriteVolatile(file, data, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}

	return nil
}

// readRecord returns the record in a file, if there is a whole one. A torn one is of an earlier boot (or of a
// kubelet that was killed before it called the driver), so nothing is mounted by it.
func readRecord(file string) (r record, found bool, err error) {
	data, err := boundedfile.Read(file, maxRecord)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}

	whole := json.Unmarshal(data, &r) == nil && r.Handle != "" && r.Driver != ""
	return r, whole, nil
}
