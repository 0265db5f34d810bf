package spec

import (
	"fmt"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// devices gives a container the devices that it asks for, and a privileged one all of the machine, too.
func devices(s *specs.Spec, cfg Config) error {
	isPrivileged := cfg.Container.GetLinux().GetSecurityContext().GetPrivileged()
	if isPrivileged {
		s.Linux.Devices = slices.Clone(cfg.Devices["/dev"])
	}

	// All devices are denied but those that follow, and those that every container has by the OCI runtime.
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: isPrivileged, Access: "rwm"}}
	for _, asked := range cfg.Container.Devices {
		found, err := askedFor(asked, cfg.Devices)
		if err != nil {
			return err
		}

		for _, d := range found {
			addDevice(s, d)
			if !isPrivileged {
				allow(s, d, asked.Permissions)
			}
		}
	}

	return nil
}

// askedFor returns what a device stands for, by its paths in the container.
func askedFor(asked *runtimeapi.Device, all map[string][]specs.LinuxDevice) ([]specs.LinuxDevice, error) {
	if strings.Trim(asked.Permissions, "rwm") != "" {
		return nil, fmt.Errorf("device %s: permissions %q are not of r, w and m",
			asked.HostPath, asked.Permissions)
	}

	found, ok := all[asked.HostPath]
	if !ok {
		return nil, fmt.Errorf("device %s: it was not looked for", asked.HostPath)
	}

	out := slices.Clone(found)
	for i := range out {
		out[i].Path = asked.ContainerPath + strings.TrimPrefix(out[i].Path, asked.HostPath)
	}
	return out, nil
}

// addDevice adds a device in the place of one that has the path.
func addDevice(s *specs.Spec, d specs.LinuxDevice) {
	s.Linux.Devices = slices.DeleteFunc(s.Linux.Devices, func(other specs.LinuxDevice) bool {
		return other.Path == d.Path
	})
	s.Linux.Devices = append(s.Linux.Devices, d)
}

func allow(s *specs.Spec, d specs.LinuxDevice, access string) {
	s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
		Allow:  true,
		Type:   d.Type,
		Major:  &d.Major,
		Minor:  &d.Minor,
		Access: access,
	})
}
