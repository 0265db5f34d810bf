package spec

import (
	"slices"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// The kernel's cryptography and the sockets of its virtual machines have been ways out of containers
// (CVE-2026-31431), and no ordinary container needs them.
func TestDefaultSeccompProfileRefusesSocketsOfTheKernelsOwn(t *testing.T) {
	cfg := plain()
	security(&cfg).Seccomp = &runtimeapi.SecurityProfile{
		ProfileType: runtimeapi.SecurityProfile_RuntimeDefault,
	}
	s, err := Generate(cfg)
	if err != nil {
		t.Fatal(err)
	}

	for family, want := range map[uint64]bool{
		unix.AF_UNIX:    true,
		unix.AF_INET6:   true,
		unix.AF_NETLINK: true,
		unix.AF_ALG:     false,
		unix.AF_VSOCK:   false,
	} {
		if got := mayOpenSocket(t, s.Linux.Seccomp, family); got != want {
			t.Errorf("socket of family %d: allowed %t, want %t", family, got, want)
		}
	}
}

// mayOpenSocket reports whether any rule lets socket(family, ...) pass.
func mayOpenSocket(t *testing.T, profile *specs.LinuxSeccomp, family uint64) bool {
	t.Helper()
	if profile.DefaultAction != specs.ActErrno {
		t.Fatalf("default action %s", profile.DefaultAction)
	}

	return slices.ContainsFunc(profile.Syscalls, func(rule specs.LinuxSyscall) bool {
		if rule.Action != specs.ActAllow || !slices.Contains(rule.Names, "socket") {
			return false
		}

		return len(rule.Args) == 0 || slices.ContainsFunc(rule.Args, func(a specs.LinuxSeccompArg) bool {
			return a.Index == 0 && compares(t, a, family)
		})
	})
}

func compares(t *testing.T, a specs.LinuxSeccompArg, value uint64) bool {
	t.Helper()
	switch a.Op {
	case specs.OpEqualTo:
		return value == a.Value
	case specs.OpNotEqual:
		return value != a.Value
	case specs.OpLessThan:
		return value < a.Value
	case specs.OpLessEqual:
		return value <= a.Value
	case specs.OpGreaterThan:
		return value > a.Value
	case specs.OpGreaterEqual:
		return value >= a.Value
	}

	t.Fatalf("comparison %s is not known to this test", a.Op)
	return false
}
