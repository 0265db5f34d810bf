package spec

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/internal/namespace"
)

var update = flag.Bool("update", false, "write testdata from the results")

func security(c *Config) *runtimeapi.LinuxContainerSecurityContext {
	return c.Container.Linux.SecurityContext
}

type mountList = []*runtimeapi.Mount

// cases are changes of the plain container; testdata/specs.txt shows what each changes in the spec.
var cases = []struct {
	name   string
	change func(*Config)
}{
	{"plain", func(*Config) {}},
	{"the pod's command, arguments and directory replace the image's", func(c *Config) {
		c.Container.Command, c.Container.Args, c.Container.WorkingDir = []string{
			"/bin/sh",
		}, []string{"-c", "true"}, "/tmp"
	}},
	{
		"arguments alone replace the image's command but not its entry point",
		func(c *Config) { c.Container.Args = []string{"--help"} },
	},
	{"an empty entry point is none", func(c *Config) { c.Image.Entrypoint = []string{""} }},
	{"a pod without a hostname has the node's", func(c *Config) {
		c.Sandbox.Hostname, c.Host.Hostname = "", "node-1"
	}},
	{"environment: the pod's over the image's, in its place; a terminal has a kind", func(c *Config) {
		c.Container.Tty = true
		c.Container.Envs = []*runtimeapi.KeyValue{{Key: "MODE", Value: []byte("pod")}, {Key: "EMPTY"}}
	}},
	{"annotations of pod and container do not reach the OCI runtime", func(c *Config) {
		c.Sandbox.Annotations = map[string]string{
			"a":                               "pod",
			"run.oci.seccomp_bpf_data":        "AAAA",
			"run.oci.keep_original_groups":    "1",
			"run.oci.systemd.force_cgroup_v1": "/sys/fs/cgroup",
			"org.systemd.property.ExecStop":   "'/bin/sh'",
		}
		c.Container.Annotations = map[string]string{
			"run.oci.hooks.stdout":             "/etc/passwd",
			"io.kubernetes.cri.container-name": "forged",
			"io.kubernetes.cri.untrusted":      "forged",
		}
	}},
	{"annotations that the handler allows reach it, and no name of ours", func(c *Config) {
		c.AllowedAnnotations = []string{"run.oci.handler", "com.example/*", "*"}
		c.Sandbox.Annotations = map[string]string{
			"run.oci.handler": "pod",
			"com.example/a":   "pod",
			"org.example/b":   "pod",
		}
		c.Container.Annotations = map[string]string{
			"run.oci.handler":                  "container",
			"io.kubernetes.cri.container-name": "forged",
			"io.kubernetes.cri.untrusted":      "forged",
		}
	}},
	{"huge pages where nothing can limit them", func(c *Config) {
		c.Container.Linux.Resources.HugepageLimits = []*runtimeapi.HugepageLimit{{PageSize: "2MB"}}
	}},
	{"resources on cgroup v1", func(c *Config) {
		c.Host.HugePages = true
		c.Container.Linux.Resources = &runtimeapi.LinuxContainerResources{
			CpuPeriod:              100000,
			CpuQuota:               50000,
			CpuShares:              512,
			CpusetCpus:             "0-1",
			CpusetMems:             "0",
			MemoryLimitInBytes:     128 << 20,
			MemorySwapLimitInBytes: 256 << 20,
			OomScoreAdj:            985,
			Unified:                map[string]string{"memory.high": "1"},
			HugepageLimits:         []*runtimeapi.HugepageLimit{{PageSize: "2MB", Limit: 4 << 20}},
		}
	}},
	{"resources on cgroup v2, with a cgroup namespace", func(c *Config) {
		c.Host.CgroupV2, c.Namespaces[specs.CgroupNamespace] = true, ""
		c.Container.Linux.Resources = &runtimeapi.LinuxContainerResources{
			CpuShares: 2,
			Unified:   map[string]string{"memory.high": "1000000"},
		}
	}},
	{"an oom_score_adj below what the server may set is raised to that", func(c *Config) {
		c.Host.OOMScoreMin, c.Container.Linux.Resources.OomScoreAdj = -500, -997
	}},
	{"users of its own, and a volume that shows as theirs", func(c *Config) {
		c.Users = &namespace.Users{First: 131072, Length: 65536}
		c.Namespaces[specs.UserNamespace] = "/run/pod/user"
		c.MappedMounts = map[string]string{"/data": "/run/volumes/0"}
		c.Container.Mounts = mountList{
			{HostPath: "/h", ContainerPath: "/data", UidMappings: from(131072), GidMappings: from(131072)},
			{HostPath: "/plain", ContainerPath: "/plain"},
		}
	}},
	{"capabilities: some added and dropped", func(c *Config) {
		security(c).Capabilities = &runtimeapi.Capability{
			AddCapabilities:  []string{"sys_time", "CAP_SYS_PTRACE"},
			DropCapabilities: []string{"CHOWN", "kill"},
		}
	}},
	{"capabilities: all dropped but one", func(c *Config) {
		security(c).Capabilities = &runtimeapi.Capability{
			AddCapabilities:  []string{"NET_BIND_SERVICE"},
			DropCapabilities: []string{"ALL"},
		}
	}},
	{"capabilities: all added but one", func(c *Config) {
		security(c).Capabilities = &runtimeapi.Capability{
			AddCapabilities:  []string{"ALL"},
			DropCapabilities: []string{"SYS_ADMIN"},
		}
	}},
	{"capabilities: ambient", func(c *Config) {
		security(c).Capabilities = &runtimeapi.Capability{
			DropCapabilities:       []string{"CHOWN"},
			AddAmbientCapabilities: []string{"NET_RAW", "CHOWN"},
		}
	}},
	{"capabilities that the server does not have cannot be given", func(c *Config) {
		c.Host.Capabilities = []string{"CAP_CHOWN", "CAP_KILL"}
		security(c).Capabilities = &runtimeapi.Capability{AddCapabilities: []string{"SYS_TIME"}}
	}},
	{"confined: read-only root, no new privileges, masked and read-only paths", func(c *Config) {
		s := security(c)
		s.ReadonlyRootfs, s.NoNewPrivs = true, true
		s.MaskedPaths, s.ReadonlyPaths = []string{"/proc/kcore", "/sys/firmware"}, []string{"/proc/sys"}
	}},
	{"seccomp profile of the node, AppArmor and SELinux", func(c *Config) {
		s := security(c)
		s.Seccomp = &runtimeapi.SecurityProfile{
			ProfileType:  runtimeapi.SecurityProfile_Localhost,
			LocalhostRef: "no-mkdir.json",
		}
		c.Localhost = []byte(`{"defaultAction":"SCMP_ACT_ALLOW",
			"syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}`)
		c.AppArmor = "web-profile"
		s.SelinuxOptions = &runtimeapi.SELinuxOption{
			User:  "system_u",
			Role:  "system_r",
			Type:  "container_t",
			Level: "s0:c1,c2",
		}
	}},
	{"privileged: everything that the server has, nothing masked", func(c *Config) {
		s := security(c)
		s.Privileged = true
		s.MaskedPaths, s.ReadonlyPaths = []string{"/proc/kcore"}, []string{"/proc/sys"}
		s.Seccomp = &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}
		c.Devices = map[string][]specs.LinuxDevice{"/dev": {{
			Path:  "/dev/fuse",
			Type:  "c",
			Major: 10,
			Minor: 229,
		}}}
	}},
	{"privileged: what it asks for beside the machine's devices, or in their place", func(c *Config) {
		security(c).Privileged = true
		c.Container.Devices = []*runtimeapi.Device{
			{HostPath: "/publish/pv", ContainerPath: "/opt/0", Permissions: "mrw"},
			{HostPath: "/publish/pv", ContainerPath: "/dev/fuse", Permissions: "mrw"},
		}
		c.Devices = map[string][]specs.LinuxDevice{
			"/dev": {
				{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229},
				{Path: "/dev/null", Type: "c", Major: 1, Minor: 3},
			},
			"/publish/pv": {{Path: "/publish/pv", Type: "b", Major: 7, Minor: 1}},
		}
	}},
	{"a device under another name", func(c *Config) {
		c.Container.Devices = []*runtimeapi.Device{
			{HostPath: "/dev/null", ContainerPath: "/dev/nothing", Permissions: "rw"},
		}
		c.Devices = map[string][]specs.LinuxDevice{"/dev/null": {{
			Path:     "/dev/null",
			Type:     "c",
			Major:    1,
			Minor:    3,
			FileMode: new(os.FileMode(0o666)),
			UID:      new(uint32(0)),
			GID:      new(uint32(0)),
		}}}
	}},
	{"namespaces of the host, and the pod's PID namespace", func(c *Config) {
		c.Namespaces = map[specs.LinuxNamespaceType]string{specs.PIDNamespace: "/ns/pid"}
	}},
	{"mounts with each propagation and access", func(c *Config) {
		c.Container.Mounts = mountList{
			{HostPath: "/h/a", ContainerPath: "/a"},
			{
				HostPath:      "/h/b",
				ContainerPath: "/b",
				Readonly:      true,
				Propagation:   runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
			},
			{
				HostPath:          "/h/c",
				ContainerPath:     "/c",
				Readonly:          true,
				RecursiveReadOnly: true,
				MountOptions:      []string{"noexec"},
			},
		}
	}},
	{"a bidirectional mount makes the root shared", func(c *Config) {
		c.Container.Mounts = mountList{
			{
				HostPath:      "/h/b",
				ContainerPath: "/b",
				Propagation:   runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL,
			},
			{
				HostPath:      "/h/c",
				ContainerPath: "/c",
				Propagation:   runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER,
			},
		}
	}},
	{"mounts of the container replace the pod's and the kernel's; image volumes", func(c *Config) {
		c.Container.Mounts = mountList{
			{HostPath: "/h/shm", ContainerPath: "/dev/shm/"},
			{HostPath: "/h/proc", ContainerPath: "/proc"},
			{Image: &runtimeapi.ImageSpec{Image: "data:1"}, ContainerPath: "data", Readonly: true},
		}
		c.ImageMounts = map[string]string{"data": "/roots/data"}
	}},
}

func TestSpecs(t *testing.T) {
	base := lines(t, plain())
	var got strings.Builder
	for _, c := range cases {
		cfg := plain()
		c.change(&cfg)
		fmt.Fprintf(&got, "# %s\n", c.name)
		if c.name == "plain" {
			got.WriteString(strings.Join(base, "\n") + "\n\n")
			continue
		}

		now := lines(t, cfg)
		for _, l := range base {
			if !slices.Contains(now, l) {
				got.WriteString("- " + l + "\n")
			}
		}

		for _, l := range now {
			if !slices.Contains(base, l) {
				got.WriteString("+ " + l + "\n")
			}
		}

		got.WriteString("\n")
	}

	const file = "testdata/specs.txt"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}

	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(got.String(), "\n")); diff != "" {
		t.Errorf("run with -update if this is wanted (-want +got):\n%s", diff)
	}
}

// lines is a spec, one fact a line.
func lines(t *testing.T, cfg Config) []string {
	t.Helper()
	s, err := Generate(cfg)
	if err != nil {
		t.Fatal(err)
	}

	if !slices.IsSortedFunc(
		s.Mounts,
		func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) },
	) {
		t.Errorf("a mount comes before one that it would be hidden by: %v", s.Mounts)
	}

	caps := s.Process.Capabilities
	if !slices.Equal(caps.Bounding, caps.Effective) || !slices.Equal(caps.Bounding, caps.Permitted) {
		t.Errorf("capabilities differ: %+v", caps)
	}

	// One of the three is enough to read.
	caps.Effective, caps.Permitted = nil, nil
	var value any
	if err := json.Unmarshal([]byte(encode(t, s)), &value); err != nil {
		t.Fatal(err)
	}

	return flatten(t, "", value)
}

func flatten(t *testing.T, at string, value any) (out []string) {
	t.Helper()
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out = append(out, flatten(t, path.Join(at, key), v[key])...)
		}

		return out

	case []any:
		// words in an order, such as arguments
		if _, words := v[0].(string); words && !strings.Contains(at, "capabilities") {
			break
		}

		for _, element := range v {
			out = append(out, at+" "+encode(t, element))
		}

		return out
	}

	return []string{at + " " + encode(t, value)}
}

func encode(t *testing.T, value any) string {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
