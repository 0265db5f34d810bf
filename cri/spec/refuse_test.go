package spec

import (
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/namespace"
)

// mounted is a change that adds a mount at /data.
func mounted(m *runtimeapi.Mount) func(*Config) {
	m.ContainerPath = "/data"
	return func(c *Config) { c.Container.Mounts = mountList{m} }
}

// from maps 65536 IDs to those from first on.
func from(first uint32) []*runtimeapi.IDMapping {
	return []*runtimeapi.IDMapping{{HostId: first, Length: 65536}}
}

var localhost = &runtimeapi.SecurityProfile{
	ProfileType:  runtimeapi.SecurityProfile_Localhost,
	LocalhostRef: "mine",
}

// refusals are changes of the plain container that cannot be done, with a word of the error.
var refusals = []struct {
	name, says string
	change     func(*Config)
}{
	{"no command", "image web:1", func(c *Config) { c.Image.Entrypoint, c.Image.Cmd = nil, nil }},
	{"a variable with a NUL byte", `"TOKEN"`, func(c *Config) {
		c.Container.Envs = []*runtimeapi.KeyValue{{Key: "TOKEN", Value: []byte("a\x00b")}}
	}},
	{"a variable of the image with a NUL byte", `"TOKEN"`, func(c *Config) {
		c.Image.Env = []string{"TOKEN=a\x00b"}
	}},
	{"an argument with a NUL byte", "argument 1", func(c *Config) {
		c.Container.Command = []string{"sh", "a\x00b"}
	}},
	{"no configuration", "c1", func(c *Config) { c.Container = nil }},
	{
		"CDI",
		"vendor/gpu=0",
		func(c *Config) { c.Container.CDIDevices = []*runtimeapi.CDIDevice{{Name: "vendor/gpu=0"}} },
	},
	{
		"unknown capability",
		"CAP_FLY",
		func(c *Config) {
			security(c).Capabilities = &runtimeapi.Capability{
				AddCapabilities: []string{"fly"},
			}
		},
	},
	{
		"seccomp where there is none",
		"mine",
		func(c *Config) { security(c).Seccomp, c.Host.Seccomp = localhost, false },
	},
	{
		"a profile that is none",
		"mine",
		func(c *Config) { security(c).Seccomp, c.Localhost = localhost, []byte("{") },
	},
	{"permissions of a device", `"rx"`, func(c *Config) {
		c.Container.Devices = []*runtimeapi.Device{{HostPath: "/dev/null", Permissions: "rx"}}
	}},
	{"a device that was not looked for", "/dev/absent", func(c *Config) {
		c.Container.Devices = []*runtimeapi.Device{{HostPath: "/dev/absent"}}
	}},
	{"a mount without source", "/data", mounted(&runtimeapi.Mount{})},
	{
		"a mount with a mapping of users and none of groups",
		"0 mappings of groups",
		mounted(&runtimeapi.Mount{HostPath: "/h", UidMappings: from(200)}),
	},
	{"a mount of other users than the pod's", "to 65536 users from 200 on, the pod to 65536 from 100 on",
		func(c *Config) {
			mounted(&runtimeapi.Mount{HostPath: "/h", UidMappings: from(200), GidMappings: from(200)})(c)
			c.Users = &namespace.Users{First: 100, Length: 65536}
		}},
	{"a user that the pod does not have", "user 1000", func(c *Config) {
		c.User.UID = 1000
		c.Users = &namespace.Users{First: 100, Length: 1000}
	}},
	{"a group that the pod does not have", "group 70000", func(c *Config) {
		c.User.AdditionalGids = []uint32{5, 70000}
		c.Users = &namespace.Users{First: 100, Length: 65536}
	}},
	{"a mapped mount of a pod without users of its own", "has no user namespace",
		mounted(&runtimeapi.Mount{HostPath: "/h", UidMappings: from(200), GidMappings: from(200)})},
	{"an unknown propagation", "/data", mounted(&runtimeapi.Mount{HostPath: "/h", Propagation: 9})},
	{
		"recursively read-only and writable",
		"/data",
		mounted(&runtimeapi.Mount{HostPath: "/h", RecursiveReadOnly: true}),
	},
	{"recursively read-only and propagated", "/data", mounted(&runtimeapi.Mount{
		HostPath:          "/h",
		RecursiveReadOnly: true,
		Readonly:          true,
		Propagation:       runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
	})},
	{
		"a writable image volume",
		"/data",
		mounted(&runtimeapi.Mount{Image: &runtimeapi.ImageSpec{Image: "x"}}),
	},
	{"an empty entry point and nothing else", "image web:1", func(c *Config) {
		c.Image.Entrypoint, c.Image.Cmd = []string{""}, nil
	}},
	{"NUL in the working directory", "working directory", func(c *Config) {
		c.Image.WorkingDir = "/a\x00b"
	}},
	{"NUL in a mount", "/data", mounted(&runtimeapi.Mount{HostPath: "/a\x00b"})},
	{"NUL in a masked path", "/proc/kcore", func(c *Config) {
		security(c).MaskedPaths = []string{"/proc/kcore\x00"}
	}},
	{
		"a mount on nothing",
		"container path",
		func(c *Config) { c.Container.Mounts = mountList{{HostPath: "/h"}} },
	},
}

func TestWhatCannotBeDoneIsRefusedByName(t *testing.T) {
	for _, c := range refusals {
		t.Run(c.name, func(t *testing.T) {
			cfg := plain()
			c.change(&cfg)
			if s, err := Generate(cfg); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, %v; want an error that says %s", s, err, c.says)
			}
		})
	}
}

// The profile itself is moby's; here it counts that it is there, and made for the capabilities that the
// container has.
func TestDefaultSeccompProfileFollowsTheCapabilities(t *testing.T) {
	allows := func(cfg Config, name string) bool {
		security(&cfg).Seccomp = &runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_RuntimeDefault,
		}
		s, err := Generate(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if s.Linux.Seccomp == nil || s.Linux.Seccomp.DefaultAction != specs.ActErrno {
			t.Fatalf("profile %+v", s.Linux.Seccomp)
		}

		return slices.ContainsFunc(s.Linux.Seccomp.Syscalls, func(c specs.LinuxSyscall) bool {
			return c.Action == specs.ActAllow && len(c.Args) == 0 && slices.Contains(c.Names, name)
		})
	}

	admin := plain()
	security(&admin).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_ADMIN"}}
	if !allows(plain(), "openat") || allows(plain(), "mount") || !allows(admin, "mount") {
		t.Errorf("openat %t, mount %t, mount with CAP_SYS_ADMIN %t; want true, false, true",
			allows(plain(), "openat"), allows(plain(), "mount"), allows(admin, "mount"))
	}

	without := plain()
	without.Host.Seccomp = false
	security(&without).Seccomp = &runtimeapi.SecurityProfile{
		ProfileType: runtimeapi.SecurityProfile_RuntimeDefault,
	}
	if s, err := Generate(without); err != nil || s.Linux.Seccomp != nil {
		t.Errorf("a kernel without seccomp: %v", err)
	}
}
