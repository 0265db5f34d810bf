// Package mapped undoes what kubelet does for a block volume of a pod beside CSI: it binds the published
// device to a path of its own, and sets a loop device on it so that the device stays open. A driver cannot
// free the device as long as that is there. trivet-node makes neither.
package mapped

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/trivet-node/trivet/internal/mount"
)

// Remove removes the file at kubelet's path with the loop devices and the mount on it. What is not there is
// success, and so is no path. The loop devices go first: they are known by the path as long as it is mounted.
func Remove(path string) error {
	if _, err := os.Lstat(path); path == "" || errors.Is(err, fs.ErrNotExist) {
		return nil
	}

	// The kernel names the path without symbolic links.
	dir, err := filepath.EvalSymlinks(filepath.Dir(path))
	if err != nil {
		return err
	}
	if err := detach(filepath.Join(dir, filepath.Base(path))); err != nil {
		return err
	}

	if err := mount.Unmount(path); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// detach frees the loop devices on a file.
func detach(file string) error {
	devices, err := filepath.Glob("/sys/block/loop*")
	if err != nil {
		return err
	}

	for _, device := range devices {
		if !isOn(device, file) {
			continue
		}
		if err := free(device, file); err != nil {
			return fmt.Errorf("free loop device %s: %w", filepath.Base(device), err)
		}
	}
	return nil
}

// isOn reports whether a loop device, by its directory in sysfs, is on a file.
func isOn(device, file string) bool {
	backing, err := os.ReadFile(filepath.Join(device, "loop/backing_file"))
	return err == nil && strings.TrimSuffix(string(backing), "\n") == file
}

// free frees a loop device, unless it is on another file when it is open: from then on it keeps its file.
func free(device, file string) error {
	loop, err := os.Open(filepath.Join("/dev", filepath.Base(device)))
	if err != nil {
		return err
	}
	defer loop.Close()

	if !isOn(device, file) {
		return nil
	}

	err = unix.IoctlSetInt(int(loop.Fd()), unix.LOOP_CLR_FD, 0)
	if errors.Is(err, unix.ENXIO) {
		return nil
	}
	return err
}
