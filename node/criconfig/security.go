package criconfig

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Paths below /proc and /sys that containers with the default procMount do not see, or may not write:
// kubelet's and containerd's.
var (
	maskedPaths = sync.OnceValue(func() []string {
		return append([]string{
			"/proc/acpi",
			"/proc/asound",
			"/proc/interrupts",
			"/proc/kcore",
			"/proc/keys",
			"/proc/latency_stats",
			"/proc/sched_debug",
			"/proc/scsi",
			"/proc/timer_list",
			"/proc/timer_stats",
			"/sys/devices/virtual/powercap",
			"/sys/firmware",
		}, throttling("/sys/devices/system/cpu")...)
	})
	readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// throttling are the directories that tell how often each CPU was slowed down for heat, by which a container
// sees what others do.
func throttling(cpus string) []string {
	found, err := filepath.Glob(filepath.Join(cpus, "cpu[0-9]*", "thermal_throttle"))
	if err != nil {
		// of a pattern that is not one
		panic(err)
	}
	return found
}

func namespaces(pod *v1.Pod) *cri.NamespaceOption {
	out := &cri.NamespaceOption{Pid: cri.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		out.Network = cri.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		out.Ipc = cri.NamespaceMode_NODE
	}

	switch {
	case pod.Spec.HostPID:
		out.Pid = cri.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		out.Pid = cri.NamespaceMode_POD
	}

	return out
}

func sandboxSecurity(node Node, pod *v1.Pod) *cri.LinuxSandboxSecurityContext {
	out := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault},
	}

	sc := pod.Spec.SecurityContext
	for i := range pod.Spec.Containers {
		if c := pod.Spec.Containers[i].SecurityContext; c != nil && c.Privileged != nil && *c.Privileged {
			out.Privileged = true
		}
	}

	for i := range pod.Spec.InitContainers {
		if c := pod.Spec.InitContainers[i].SecurityContext; c != nil && c.Privileged != nil && *c.Privileged {
			out.Privileged = true
		}
	}

	if sc == nil {
		return out
	}

	out.RunAsUser, out.RunAsGroup = int64Value(sc.RunAsUser), int64Value(sc.RunAsGroup)
	out.SupplementalGroups = podGroups(sc)
	out.SupplementalGroupsPolicy = groupsPolicy(sc)
	out.SelinuxOptions = selinux(sc.SELinuxOptions)
	return out
}

func int64Value(v *int64) *cri.Int64Value {
	if v == nil {
		return nil
	}
	return &cri.Int64Value{Value: *v}
}

func podGroups(sc *v1.PodSecurityContext) []int64 {
	out := slices.Clone(sc.SupplementalGroups)
	if sc.FSGroup != nil {
		out = append(out, *sc.FSGroup)
	}
	return out
}

func groupsPolicy(sc *v1.PodSecurityContext) cri.SupplementalGroupsPolicy {
	if sc.SupplementalGroupsPolicy != nil &&
		*sc.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict {
		return cri.SupplementalGroupsPolicy_Strict
	}
	return cri.SupplementalGroupsPolicy_Merge
}

func selinux(o *v1.SELinuxOptions) *cri.SELinuxOption {
	if o == nil {
		return nil
	}
	return &cri.SELinuxOption{
		User:  o.User,
		Role:  o.Role,
		Type:  o.Type,
		Level: o.Level,
	}
}

// User is the user an image says its processes run as: a number, a name, or neither.
type User struct {
	UID  *int64
	Name string
}

// containerSecurity merges what the container says over what the pod says.
func containerSecurity(
	node Node,
	pod *v1.Pod,
	c *v1.Container,
	image User,
	extraGroups []int64,
) (*cri.LinuxContainerSecurityContext, error) {
	psc, csc := pod.Spec.SecurityContext, c.SecurityContext
	if psc == nil {
		psc = &v1.PodSecurityContext{}
	}
	if csc == nil {
		csc = &v1.SecurityContext{}
	}

	out := &cri.LinuxContainerSecurityContext{
		NamespaceOptions:         namespaces(pod),
		SelinuxOptions:           selinux(first(csc.SELinuxOptions, psc.SELinuxOptions)),
		RunAsGroup:               int64Value(first(csc.RunAsGroup, psc.RunAsGroup)),
		SupplementalGroups:       append(podGroups(psc), extraGroups...),
		SupplementalGroupsPolicy: groupsPolicy(psc),
		Privileged:               truth(csc.Privileged),
		ReadonlyRootfs:           truth(csc.ReadOnlyRootFilesystem),
		NoNewPrivs:               csc.AllowPrivilegeEscalation != nil && !*csc.AllowPrivilegeEscalation,
	}

	user := first(csc.RunAsUser, psc.RunAsUser)
	if err := checkNonRoot(first(csc.RunAsNonRoot, psc.RunAsNonRoot), user, image); err != nil {
		return nil, err
	}

	switch {
	case user != nil:
		out.RunAsUser = int64Value(user)
	case image.UID != nil:
		out.RunAsUser = int64Value(image.UID)
	default:
		out.RunAsUsername = image.Name
	}

	if csc.Capabilities != nil {
		out.Capabilities = &cri.Capability{
			AddCapabilities:  capabilities(csc.Capabilities.Add),
			DropCapabilities: capabilities(csc.Capabilities.Drop),
		}
	}

	if csc.ProcMount == nil || *csc.ProcMount == v1.DefaultProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths(), readonlyPaths
	}

	out.Seccomp = seccomp(node, first(csc.SeccompProfile, psc.SeccompProfile))
	var err error
	out.Apparmor, err = apparmor(pod, c, first(csc.AppArmorProfile, psc.AppArmorProfile))
	return out, err
}

func first[T any](values ...*T) *T {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

func truth(b *bool) bool { return b != nil && *b }

func capabilities(in []v1.Capability) []string {
	var out []string
	for _, c := range in {
		out = append(out, string(c))
	}
	return out
}

// checkNonRoot enforces runAsNonRoot with kubelet's words.
func checkNonRoot(nonRoot *bool, user *int64, image User) error {
	switch {
	case !truth(nonRoot):
		return nil
	case user != nil && *user == 0:
		return fmt.Errorf("container's runAsUser breaks non-root policy")
	case user != nil:
		return nil
	case image.UID != nil && *image.UID == 0, image == User{}:
		// an image that says nothing runs as root
		return fmt.Errorf("container has runAsNonRoot and image will run as root")
	case image.UID == nil && image.Name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify "+
			"user is non-root", image.Name)
	}

	return nil
}

func seccomp(node Node, p *v1.SeccompProfile) *cri.SecurityProfile {
	switch {
	case p == nil && node.SeccompDefault:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	case p == nil || p.Type == v1.SeccompProfileTypeUnconfined:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	case p.Type == v1.SeccompProfileTypeLocalhost && p.LocalhostProfile != nil:
		return &cri.SecurityProfile{
			ProfileType:  cri.SecurityProfile_Localhost,
			LocalhostRef: filepath.Join(node.SeccompRoot, filepath.Join("/", *p.LocalhostProfile)),
		}
	}

	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
}

// apparmor takes the field or, for objects older than the field, the annotation.
func apparmor(pod *v1.Pod, c *v1.Container, p *v1.AppArmorProfile) (*cri.SecurityProfile, error) {
	if p == nil {
		text, ok := pod.Annotations[v1.DeprecatedAppArmorBetaContainerAnnotationKeyPrefix+c.Name]
		if !ok {
			return nil, nil
		}

		local, isLocal := strings.CutPrefix(text, v1.DeprecatedAppArmorBetaProfileNamePrefix)
		switch {
		case text == v1.DeprecatedAppArmorBetaProfileRuntimeDefault:
			p = &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}
		case text == v1.DeprecatedAppArmorBetaProfileNameUnconfined:
			p = &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeUnconfined}
		case isLocal:
			p = &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeLocalhost, LocalhostProfile: &local}
		default:
			return nil, fmt.Errorf("container %s: AppArmor annotation %q is not valid", c.Name, text)
		}
	}

	switch p.Type {
	case v1.AppArmorProfileTypeUnconfined:
		return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}, nil
	case v1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil {
			return nil, fmt.Errorf("container %s: AppArmor profile of type Localhost has no name", c.Name)
		}

		return &cri.SecurityProfile{
			ProfileType:  cri.SecurityProfile_Localhost,
			LocalhostRef: *p.LocalhostProfile,
		}, nil
	}

	return &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}, nil
}
