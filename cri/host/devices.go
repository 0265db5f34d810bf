package host

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// DevicesFor returns the devices that a container may be given, by the paths that spec.Config.Devices wants:
// those that it asks for, and all below /dev if it is privileged.
func DevicesFor(container *runtimeapi.ContainerConfig) (map[string][]specs.LinuxDevice, error) {
	var paths []string
	if container.GetLinux().GetSecurityContext().GetPrivileged() {
		paths = append(paths, "/dev")
	}
	for _, d := range container.GetDevices() {
		paths = append(paths, d.HostPath)
	}

	found := map[string][]specs.LinuxDevice{}
	for _, path := range paths {
		devices, err := devicesAt(path)
		if err != nil {
			return nil, fmt.Errorf("device %s: %w", path, err)
		}

		found[path] = devices
	}

	return found, nil
}

// madeByContainer are terminals and mounts of /dev that a container makes for itself.
var madeByContainer = []string{
	"/dev/console",
	"/dev/fd",
	"/dev/mqueue",
	"/dev/ptmx",
	"/dev/pts",
	"/dev/shm",
}

// devicesAt lists the device at path, which may be a link, or all devices below it if it is a directory.
func devicesAt(path string) ([]specs.LinuxDevice, error) {
	var all []specs.LinuxDevice
	err := filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		// What is removed during the walk is left out, but not the path itself.
		if err != nil && p == path {
			return err
		}
		if err != nil {
			return nil
		}

		if slices.Contains(madeByContainer, p) {
			// For what is not a directory, SkipDir would leave out all that comes after it in /dev.
			if d.IsDir() {
				return fs.SkipDir
			}

			return nil
		}

		if d.Type()&fs.ModeSymlink != 0 && p != path {
			return nil
		}

		device, isDevice := deviceAt(p)
		if isDevice {
			all = append(all, device)
		} else if p == path && !d.IsDir() {
			return errors.New("not a device")
		}

		return nil
	})

	return all, err
}

func deviceAt(path string) (device specs.LinuxDevice, ok bool) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return device, false
	}

	device = specs.LinuxDevice{
		Path:     path,
		Major:    int64(unix.Major(st.Rdev)),
		Minor:    int64(unix.Minor(st.Rdev)),
		FileMode: new(os.FileMode(st.Mode & 0o777)),
		UID:      &st.Uid,
		GID:      &st.Gid,
	}

	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		device.Type = "c"
	case unix.S_IFBLK:
		device.Type = "b"
	default:
		return device, false
	}

	return device, true
}
