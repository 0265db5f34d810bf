package spec

import (
	imagespec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/trivet-node/trivet/cri/account"
)

// plain is a container that asks for nothing, in a pod on a machine that can do everything.
func plain() Config {
	return Config{
		ID: "c1",
		Container: &runtimeapi.ContainerConfig{
			Metadata: &runtimeapi.ContainerMetadata{Name: "app"},
			Image:    &runtimeapi.ImageSpec{Image: "web:1"},
			Linux: &runtimeapi.LinuxContainerConfig{
				Resources:       &runtimeapi.LinuxContainerResources{},
				SecurityContext: &runtimeapi.LinuxContainerSecurityContext{},
			},
		},
		Sandbox: &runtimeapi.PodSandboxConfig{
			Metadata: &runtimeapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "u1"},
			Hostname: "pod",
		},
		Image: imagespec.ImageConfig{
			Entrypoint: []string{"/web"},
			Cmd:        []string{"--port", "80"},
			WorkingDir: "/srv",
			Env:        []string{"PATH=/bin", "MODE=image"},
		},
		Rootfs: "/roots/c1",

		User: account.User{
			User: specs.User{UID: 33, GID: 34, AdditionalGids: []uint32{34, 50}},
			Home: "/home/web",
		},
		Namespaces: map[specs.LinuxNamespaceType]string{
			specs.NetworkNamespace: "/ns/net",
			specs.IPCNamespace:     "/ns/ipc",
			specs.UTSNamespace:     "/ns/uts",
			specs.PIDNamespace:     "",
		},
		CgroupsPath: "/pods/u1/c1",
		Files: []specs.Mount{
			{
				Destination: "/dev/shm",
				Type:        "bind",
				Source:      "/pod/shm",
				Options:     []string{"rbind", "rw"},
			},
			{
				Destination: "/etc/resolv.conf",
				Type:        "bind",
				Source:      "/pod/resolv.conf",
				Options:     []string{"rbind", "rw"},
			},
		},

		Host: Host{
			Capabilities: knownCapabilities(),
			OOMScoreMin:  -1000,
			Seccomp:      true,
			AppArmor:     true,
			SELinux:      true,
		},
	}
}
