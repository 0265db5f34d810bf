// Package record is the vol_data.json that says which volume of which CSI driver is at a place on disk, as
// kubelet writes it, and whether what was done there is still so. It is written before a driver is called:
// what was done is undone from it alone, after a crash, a reboot, or a change from kubelet.
package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/internal/durable"
	"github.com/trivet-node/trivet/internal/mount"
	"github.com/trivet-node/trivet/internal/removal"
)

// File is the name of a record in its directory.
const File = "vol_data.json"

// maxSize bounds the bytes of a record that are read; kubelet's have some hundreds.
const maxSize = 1 << 20

// Record is a vol_data.json: kubelet's fields, and three of trivet's own, which kubelet ignores. kubelet
// reads every field as a string.
type Record struct {
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

// Read returns the record in a file, if there is a whole one. A torn one is of an earlier boot (or of a
// kubelet that was killed before it called the driver), so nothing is mounted by it.
func Read(file string) (r Record, found bool, err error) {
	data, err := boundedfile.Read(file, maxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return r, false, nil
	}
	if err != nil {
		return r, false, err
	}

	whole := json.Unmarshal(data, &r) == nil && r.Handle != "" && r.Driver != ""
	return r, whole, nil
}

// Write replaces the record in a file. It does without fsync: the mounts that a record describes do not
// survive a power loss, and a record that was lost or torn by it counts as none.
func (r Record) Write(file string) error {
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

// RemoveDir removes a directory and everything in it, the record last: as long as something else cannot be
// removed, the record says whose that is.
func RemoveDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}

	for _, e := range entries {
		if e.Name() == File {
			continue
		}
		if err := removal.Tree(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}

	if err := os.Remove(filepath.Join(dir, File)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return removal.Tree(dir)
}

// Finish writes the record to a file as one of work that is done, with what is mounted at path now.
func (r Record) Finish(boot, path, file string) error {
	mounted, err := mount.Mounted(path)
	if err != nil {
		return err
	}

	r.Ready = boot
	if mounted {
		r.Mounted = "true"
	}

	return r.Write(file)
}

// Holds reports whether what was finished by the record is there: finished in this boot, and the mount that
// was seen at path has not been unmounted since.
func (r Record) Holds(boot, path string) (bool, error) {
	if r.Ready != boot {
		return false, nil
	}
	if r.Mounted == "" {
		return true, nil
	}
	return mount.Mounted(path)
}
