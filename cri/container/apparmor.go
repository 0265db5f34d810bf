package container

import (
	"context"
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// appArmorProfile is the name of the profile that a container runs under, which the kernel has; empty for
// none. A container that asks for a profile gets it or is refused. One that says nothing gets the default
// one where that can be loaded.
func (c *Containers) appArmorProfile(
	ctx context.Context, security *runtimeapi.LinuxContainerSecurityContext,
) (string, error) {
	asked := appArmorAsked(security)
	switch {
	case security.GetPrivileged() || asked.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return "", nil
	case asked.GetProfileType() == runtimeapi.SecurityProfile_Localhost:
		return c.localProfile(asked.LocalhostRef)
	case !c.cfg.Host.AppArmor:
		return "", nil
	}

	name, err := c.cfg.AppArmor.Default(ctx)
	if err != nil && asked == nil {
		c.cfg.Log.Debug("a container that names no AppArmor profile is not confined", "err", err)
		return "", nil
	}

	return name, err
}

func (c *Containers) localProfile(name string) (string, error) {
	if !c.cfg.Host.AppArmor {
		return "", fmt.Errorf("AppArmor profile %q: the kernel has no AppArmor", name)
	}
	loaded, err := c.cfg.AppArmor.Loaded(name)
	if err == nil && !loaded {
		err = fmt.Errorf("AppArmor profile %q is not loaded", name)
	}
	return name, err
}

// appArmorAsked is the profile that a container asks for, also in the words of older clients; nil if it
// names none.
func appArmorAsked(security *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if p := security.GetApparmor(); p != nil {
		return p
	}

	old := security.GetApparmorProfile() //nolint:staticcheck // deprecated, not gone
	name, isLocal := strings.CutPrefix(old, "localhost/")
	kind := runtimeapi.SecurityProfile_RuntimeDefault
	switch {
	case old == "":
		return nil
	case old == "unconfined":
		kind = runtimeapi.SecurityProfile_Unconfined
	case isLocal:
		kind = runtimeapi.SecurityProfile_Localhost
	}

	return &runtimeapi.SecurityProfile{ProfileType: kind, LocalhostRef: name}
}
