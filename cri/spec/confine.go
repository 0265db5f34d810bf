package spec

import (
	"fmt"

	"github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// confine sets seccomp, AppArmor and SELinux. If the kernel does not have seccomp, that is an error only for
// a container that asks for a named profile.
func confine(s *specs.Spec, cfg Config) error {
	security := cfg.Container.GetLinux().GetSecurityContext()
	if err := confineSyscalls(s, cfg, security); err != nil {
		return err
	}
	s.Process.ApparmorProfile = cfg.AppArmor
	if o := security.GetSelinuxOptions(); o != nil && cfg.Host.SELinux && o.Type != "" {
		s.Process.SelinuxLabel = fmt.Sprintf("%s:%s:%s:%s", o.User, o.Role, o.Type, o.Level)
	}
	return nil
}

func confineSyscalls(s *specs.Spec, cfg Config, security *runtimeapi.LinuxContainerSecurityContext) error {
	profile := security.GetSeccomp()
	if security.GetPrivileged() || profile == nil ||
		profile.ProfileType == runtimeapi.SecurityProfile_Unconfined {
		return nil
	}

	// A kernel without seccomp cannot confine; only a profile by name insists on it.
	if !cfg.Host.Seccomp {
		if profile.ProfileType == runtimeapi.SecurityProfile_Localhost {
			return fmt.Errorf("seccomp profile %s: the kernel has no seccomp", profile.LocalhostRef)
		}

		return nil
	}

	var err error
	if profile.ProfileType == runtimeapi.SecurityProfile_Localhost {
		if s.Linux.Seccomp, err = seccomp.LoadProfile(string(cfg.Localhost), s); err != nil {
			return fmt.Errorf("seccomp profile %s: %w", profile.LocalhostRef, err)
		}

		return nil
	}

	if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s); err != nil {
		return fmt.Errorf("default seccomp profile: %w", err)
	}

	return nil
}
