package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// source is what is mounted for a volume: its directory, or the device of its file.
func (d *driver) source(v *volume) (string, error) {
	if !v.Block {
		return d.store.path(v.ID), nil
	}
	if device := d.devices[v.ID]; device != nil {
		return device.Name(), nil
	}

	device, err := attach(d.store.path(v.ID))
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

// attach connects a file with a free loop device until the device is closed.
func attach(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()

	control, err := os.OpenFile("/dev/loop-control", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer control.Close()

	// Others may take a device that is free; then the next one is asked for.
	for range 64 {
		n, err := unix.IoctlRetInt(int(control.Fd()), unix.LOOP_CTL_GET_FREE)
		if err != nil {
			return nil, fmt.Errorf("find a free loop device: %w", err)
		}

		device, err := os.OpenFile(fmt.Sprintf("/dev/loop%d", n), os.O_RDWR, 0)
		if err != nil {
			return nil, err
		}

		config := unix.LoopConfig{Fd: uint32(file.Fd())}
		config.Info.Flags = unix.LO_FLAGS_AUTOCLEAR
		copy(config.Info.File_name[:], path)
		err = unix.IoctlLoopConfigure(int(device.Fd()), &config)
		if err == nil {
			return device, nil
		}
		if err = errors.Join(err, device.Close()); !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("attach %s to %s: %w", path, device.Name(), err)
		}
	}

	return nil, fmt.Errorf("attach %s: every loop device was taken", path)
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
