package main

import (
	"os"

	"github.com/trivet-node/trivet/e2e/loopdev"
)

// source is what is mounted for a volume: its directory, or the device of its file.
func (d *driver) source(v *volume) (string, error) {
	if !v.Block {
		return d.store.path(v.ID), nil
	}
	if device := d.devices[v.ID]; device != nil {
		return device.Name(), nil
	}

	device, err := loopdev.Attach(d.store.path(v.ID))
	if err != nil {
		return "", err
	}

	if d.devices == nil {
		d.devices = map[string]*os.File{}
	}

	d.devices[v.ID] = device
	return device.Name(), nil
}

// detach lets go of a volume's device, which the kernel detaches when nobody has it open.
func (d *driver) detach(v *volume) error {
	device := d.devices[v.ID]
	if device == nil {
		return nil
	}
	delete(d.devices, v.ID)
	return device.Close()
}

// grow makes a volume larger; it is never made smaller.
func (s *store) grow(v *volume, size int64) error {
	if size <= v.Size {
		return nil
	}
	if v.Block {
		if err := os.Truncate(s.path(v.ID), size); err != nil {
			return err
		}
	}

	v.Size = size
	return s.save()
}
