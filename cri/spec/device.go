package spec

import (
	"fmt"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// devices gives all devices of the machine to a privileged container, and to others what they ask for.
func devices(s *specs.Spec, cfg Config) error {
	if cfg.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		s.Linux.Devices = cfg.Devices["/dev"]
		s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
		return nil
	}

	// All devices are denied but those that follow, and those that every container has by the OCI runtime.
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	for _, asked := range cfg.Container.Devices {
		if strings.Trim(asked.Permissions, "rwm") != "" {
			return fmt.Errorf("device %s: permissions %q are not of r, w and m",
				asked.HostPath, asked.Permissions)
		}

		found, ok := cfg.Devices[asked.HostPath]
		if !ok {
			return fmt.Errorf("device %s: it was not looked for", asked.HostPath)
		}

		for _, d := range found {
			d.Path = asked.ContainerPath + strings.TrimPrefix(d.Path, asked.HostPath)
			s.Linux.Devices = append(s.Linux.Devices, d)
			s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, specs.LinuxDeviceCgroup{
				Allow:  true,
				Type:   d.Type,
				Major:  &d.Major,
				Minor:  &d.Minor,
				Access: asked.Permissions,
			})
		}
	}

	return nil
}
