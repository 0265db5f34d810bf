// Package host finds out what the machine can do and what this process may do on it, and which devices it
// has, for cri/spec, which looks at nothing itself.
package host

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/capability"

	"github.com/trivet-node/trivet/cri/spec"
	"github.com/trivet-node/trivet/internal/cgroup"
)

// Probe returns what the machine can do, except for its hostname, which may change. groups are the control
// groups that the containers are in.
func Probe(groups *cgroup.Host) (spec.Host, error) {
	caps, err := boundingSet()
	if err != nil {
		return spec.Host{}, err
	}

	own, err := ownGroup()
	if err != nil {
		return spec.Host{}, err
	}

	h := spec.Host{
		Capabilities: caps.names(),
		CgroupV2:     groups.V2,
		HugePages:    groups.Controller("hugetlb"),
		Swap:         groups.V2 && groups.BoundsSwap(own),
	}

	// Without the capability, nobody may set a lower score than the own one.
	h.OOMScoreMin = -1000
	if !caps.has(capability.CAP_SYS_RESOURCE) {
		if h.OOMScoreMin, err = ownOOMScore(); err != nil {
			return spec.Host{}, err
		}
	}

	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return spec.Host{}, err
	}

	h.Seccomp = strings.Contains(string(status), "\nSeccomp:")
	h.AppArmor = apparmorIsEnabled()
	_, err = os.Stat("/sys/fs/selinux/enforce")
	h.SELinux = err == nil
	return h, nil
}

// ownGroup returns the path of the group of cgroup v2 that this process is in; "/" where there is no v2.
func ownGroup() (string, error) {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}

	for line := range strings.Lines(string(text)) {
		if group, v2 := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); v2 {
			return group, nil
		}
	}

	return "/", nil
}

// capabilities are those of one set, in the order of linux/capability.h.
type capabilities []capability.Cap

// boundingSet returns the capabilities that this process can give to a container.
func boundingSet() (capabilities, error) {
	supported, err := capability.ListSupported()
	if err != nil {
		return nil, fmt.Errorf("capabilities of the kernel: %w", err)
	}

	var set capabilities
	for _, c := range supported {
		bound, err := capability.GetBound(c)
		if err != nil {
			return nil, fmt.Errorf("bounding set of this process: %w", err)
		}
		if bound {
			set = append(set, c)
		}
	}

	return set, nil
}

func (set capabilities) has(c capability.Cap) bool { return slices.Contains(set, c) }

func (set capabilities) names() []string {
	var names []string
	for _, c := range set {
		names = append(names, spec.CapabilityName(c))
	}
	return names
}

func ownOOMScore() (int, error) {
	text, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

func apparmorIsEnabled() bool {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return err == nil && strings.HasPrefix(string(enabled), "Y")
}
