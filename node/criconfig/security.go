package criconfig

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/node/podspec"
)

// maskedPaths are the paths that containers with the default procMount do not see: kubelet's and
// containerd's. They are looked up once, because they depend on the machine's CPUs.
var maskedPaths = sync.OnceValue(func() []string {
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

// readonlyPaths are those that containers with the default procMount may not write to.
var readonlyPaths = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}

// throttling returns the directories that say how often each CPU was slowed down for heat, by which a
// container would see what others do.
func throttling(cpus string) []string {
	// The only error is that of a pattern that is not valid, and this one is.
	found, _ := filepath.Glob(filepath.Join(cpus, "cpu[0-9]*", "thermal_throttle"))
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

func sandboxSecurity(pod *v1.Pod) *cri.LinuxSandboxSecurityContext {
	out := &cri.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod),
		Seccomp:          runtimeDefault(),
	}

	for c := range podspec.Regular(pod) {
		if c.SecurityContext != nil && isTrue(c.SecurityContext.Privileged) {
			out.Privileged = true
		}
	}

	if sc := pod.Spec.SecurityContext; sc != nil {
		out.RunAsUser = int64Value(sc.RunAsUser)
		out.RunAsGroup = int64Value(sc.RunAsGroup)
		out.SupplementalGroups = podGroups(sc)
		out.SupplementalGroupsPolicy = groupsPolicy(sc)
		out.SelinuxOptions = selinux(sc.SELinuxOptions)
	}

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

// User is the user that an image's processes run as: a number, a name, or neither.
type User struct {
	UID  *int64
	Name string
}

// containerSecurity merges what the container says over what the pod says.
func containerSecurity(node Node, pod *v1.Pod, in Container) (*cri.LinuxContainerSecurityContext, error) {
	psc, csc := pod.Spec.SecurityContext, in.Spec.SecurityContext
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
		SupplementalGroups:       append(podGroups(psc), in.Groups...),
		SupplementalGroupsPolicy: groupsPolicy(psc),
		Privileged:               isTrue(csc.Privileged),
		ReadonlyRootfs:           isTrue(csc.ReadOnlyRootFilesystem),
		NoNewPrivs:               csc.AllowPrivilegeEscalation != nil && !*csc.AllowPrivilegeEscalation,
		Seccomp:                  seccomp(node, first(csc.SeccompProfile, psc.SeccompProfile)),
	}
	if csc.Capabilities != nil {
		out.Capabilities = &cri.Capability{
			AddCapabilities:  capabilities(csc.Capabilities.Add),
			DropCapabilities: capabilities(csc.Capabilities.Drop),
		}
	}

	// The runtime has no list of its own: what is not named here is open to the container.
	if csc.ProcMount == nil || *csc.ProcMount == v1.DefaultProcMount {
		out.MaskedPaths, out.ReadonlyPaths = maskedPaths(), readonlyPaths
	}

	var err error
	out.Apparmor, err = apparmor(pod, in.Spec, first(csc.AppArmorProfile, psc.AppArmorProfile))
	if err != nil {
		return nil, err
	}

	// CRI does not know runAsNonRoot, so it is checked here, against the image's user where no pod sets one.
	user := first(csc.RunAsUser, psc.RunAsUser)
	if err := checkNonRoot(first(csc.RunAsNonRoot, psc.RunAsNonRoot), user, in.ImageUser); err != nil {
		return nil, err
	}

	// A name is looked up by the runtime, in the image's /etc/passwd.
	switch {
	case user != nil:
		out.RunAsUser = int64Value(user)
	case in.ImageUser.UID != nil:
		out.RunAsUser = int64Value(in.ImageUser.UID)
	default:
		out.RunAsUsername = in.ImageUser.Name
	}

	return out, nil
}

// first returns the first value that is set, nil if none is.
func first[T any](values ...*T) *T {
	for _, v := range values {
		if v != nil {
			return v
		}
	}
	return nil
}

func isTrue(b *bool) bool { return b != nil && *b }

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
	case !isTrue(nonRoot):
		return nil
	case user != nil && *user == 0:
		return errors.New("container's runAsUser breaks non-root policy")
	case user != nil:
		return nil
	case image.UID != nil && *image.UID == 0, image == User{}:
		// An image that names no user runs as root.
		return errors.New("container has runAsNonRoot and image will run as root")
	case image.UID == nil && image.Name != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify "+
			"user is non-root", image.Name)
	}

	return nil
}
