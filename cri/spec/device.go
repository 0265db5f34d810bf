package spec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// devices gives all host devices to a privileged container, to others what they ask for.
func devices(s *specs.Spec, cfg Config) error {
	if cfg.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		s.Linux.Devices = cfg.Host.Devices
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}

	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, d := range cfg.Container.Devices {
		found, err := Devices(d.HostPath)
		if err != nil {
			return fmt.Errorf("device %s: %w", d.HostPath, err)
		}
		if strings.Trim(d.Permissions, "rwm") != "" {
			return fmt.Errorf("device %s: permissions %q are not of r, w and m", d.HostPath, d.Permissions)
		}

		for _, dev := range found {
			dev.Path = d.ContainerPath + strings.TrimPrefix(dev.Path, d.HostPath)
			s.Linux.Devices = append(s.Linux.Devices, dev)
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices,
				specs.LinuxDeviceCgroup{
					Allow:  true,
					Type:   dev.Type,
					Major:  &dev.Major,
					Minor:  &dev.Minor,
					Access: d.Permissions,
				})
		}
	}

	return nil
}

// Devices lists the device at path, or all devices below it if it is a directory. Terminals and mounts of
// /dev that a container makes for itself are left out.
func Devices(path string) ([]specs.LinuxDevice, error) {
	var all []specs.LinuxDevice
	err := filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			if p == path {
				return err
			}

			// gone meanwhile
			return nil
		}

		switch p {
		case "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd":
			return filepath.SkipDir
		case "/dev/console", "/dev/ptmx":
			return nil
		}

		var st unix.Stat_t
		if err := unix.Stat(p, &st); err != nil || (d.Type()&os.ModeSymlink != 0 && p != path) {
			return nil
		}

		kind := map[uint32]string{unix.S_IFCHR: "c", unix.S_IFBLK: "b"}[st.Mode&unix.S_IFMT]
		if kind == "" {
			if p == path && !d.IsDir() {
				return fmt.Errorf("not a device")
			}

			return nil
		}

		mode := os.FileMode(st.Mode & 0o777)
		all = append(all, specs.LinuxDevice{
			Path:     p,
			Type:     kind,
			Major:    int64(unix.Major(st.Rdev)),
			Minor:    int64(unix.Minor(st.Rdev)),
			FileMode: &mode,
			UID:      &st.Uid,
			GID:      &st.Gid,
		})

		return nil
	})

	return all, err
}
