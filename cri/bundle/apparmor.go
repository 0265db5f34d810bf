package bundle

import (
	"context"
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// appArmorProfile returns the name of the profile that a container runs under, which the kernel has; empty
// for none. A container that asks for a profile of the node's gets it, privileged or not, or is refused. A
// privileged one has no default profile. Others that ask for none get the default one where that can be
// loaded.
func (m *Maker) appArmorProfile(
	ctx context.Context, security *runtimeapi.LinuxContainerSecurityContext,
) (string, error) {
	requested := requestedAppArmor(security)
	switch {
	case requested.GetProfileType() == runtimeapi.SecurityProfile_Localhost:
		return m.localAppArmor(localName(requested))
	case security.GetPrivileged() || requested.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return "", nil
	case !m.cfg.Host.AppArmor:
		return "", nil
	}

	name, err := m.cfg.AppArmor.Default(ctx)
	if err != nil && requested == nil {
		m.cfg.Log.Debug("a container that names no AppArmor profile is not confined", "err", err)
		return "", nil
	}

	return name, err
}

// localAppArmor returns the name of a profile that the administrator has to have loaded.
func (m *Maker) localAppArmor(name string) (string, error) {
	if !m.cfg.Host.AppArmor {
		return "", fmt.Errorf("AppArmor profile %q: the kernel has no AppArmor", name)
	}
	loaded, err := m.cfg.AppArmor.Loaded(name)
	if err == nil && !loaded {
		err = fmt.Errorf("AppArmor profile %q is not loaded", name)
	}
	return name, err
}

// localPrefix is what the deprecated fields of older clients have before the name of a profile of the node's.
const localPrefix = "localhost/"

// localName returns the name of a profile of the node's, of AppArmor or seccomp. There are clients that write
// it into the newer field as it was in the older one, critest among them.
func localName(p *runtimeapi.SecurityProfile) string {
	return strings.TrimPrefix(p.LocalhostRef, localPrefix)
}

// requestedAppArmor returns the profile that a container asks for, also by the deprecated field of older
// clients; nil if it names none.
func requestedAppArmor(security *runtimeapi.LinuxContainerSecurityContext) *runtimeapi.SecurityProfile {
	if p := security.GetApparmor(); p != nil {
		return p
	}

	old := security.GetApparmorProfile() //nolint:staticcheck // deprecated, not gone
	name, isLocal := strings.CutPrefix(old, localPrefix)
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
