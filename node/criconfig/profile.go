package criconfig

import (
	"fmt"
	"path/filepath"
	"strings"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func runtimeDefault() *cri.SecurityProfile {
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
}

func unconfined() *cri.SecurityProfile {
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
}

func localhost(ref string) *cri.SecurityProfile {
	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Localhost, LocalhostRef: ref}
}

// seccomp returns the profile of a container. One that is of no known form is never taken for none.
func seccomp(node Node, p *v1.SeccompProfile) *cri.SecurityProfile {
	switch {
	case p == nil && node.SeccompDefault:
		return runtimeDefault()
	case p == nil || p.Type == v1.SeccompProfileTypeUnconfined:
		return unconfined()
	case p.Type == v1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		return localhost(filepath.Join(node.SeccompRoot, filepath.Join("/", *p.LocalhostProfile)))
	}
	return runtimeDefault()
}

// apparmor returns the profile of a container: that of the field or, for objects older than the field, of the
// annotation. It returns nil if the container does not say.
func apparmor(pod *v1.Pod, c *v1.Container, p *v1.AppArmorProfile) (*cri.SecurityProfile, error) {
	if p == nil {
		text, ok := pod.Annotations[v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if !ok {
			return nil, nil
		}

		return annotatedAppArmor(c, text)
	}

	switch p.Type {
	case v1.AppArmorProfileTypeUnconfined:
		return unconfined(), nil
	case v1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			return nil, fmt.Errorf("container %s: AppArmor profile of type Localhost has no name", c.Name)
		}

		return localhost(*p.LocalhostProfile), nil
	}

	return runtimeDefault(), nil
}

func annotatedAppArmor(c *v1.Container, text string) (*cri.SecurityProfile, error) {
	switch text {
	case v1.DeprecatedAppArmorBetaProfileRuntimeDefault:
		return runtimeDefault(), nil
	case v1.DeprecatedAppArmorBetaProfileNameUnconfined:
		return unconfined(), nil
	}
	name, ok := strings.CutPrefix(text, v1.DeprecatedAppArmorBetaProfileNamePrefix)
	if !ok {
		return nil, fmt.Errorf("container %s: AppArmor annotation %q is not valid", c.Name, text)
	}
	return localhost(name), nil
}
