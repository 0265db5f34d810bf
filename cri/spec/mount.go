package spec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts adds the kernel's filesystems, what the pod gives, and what the container asks for, parents before
// children.
func mounts(s *specs.Spec, cfg Config) error {
	privileged := cfg.Container.GetLinux().GetSecurityContext().GetPrivileged()
	asked := map[string]bool{}
	for _, m := range cfg.Container.Mounts {
		asked[path.Clean(m.ContainerPath)] = true
	}

	access := "ro"
	if privileged {
		access = "rw"
	}

	all := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{
			Destination: "/dev",
			Type:        "tmpfs",
			Source:      "tmpfs",
			Options:     []string{"nosuid", "strictatime", "mode=755", "size=65536k"},
		},
		{
			Destination: "/dev/pts",
			Type:        "devpts",
			Source:      "devpts",
			Options:     []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"},
		},
		{
			Destination: "/dev/mqueue",
			Type:        "mqueue",
			Source:      "mqueue",
			Options:     []string{"nosuid", "noexec", "nodev"},
		},
		{
			Destination: "/sys",
			Type:        "sysfs",
			Source:      "sysfs",
			Options:     []string{"nosuid", "noexec", "nodev", access},
		},
		{
			Destination: "/sys/fs/cgroup",
			Type:        "cgroup",
			Source:      "cgroup",
			Options:     []string{"nosuid", "noexec", "nodev", "relatime", access},
		},
	}

	all = slices.DeleteFunc(
		append(all, cfg.Files...),
		func(m specs.Mount) bool { return asked[path.Clean(m.Destination)] },
	)

	for _, m := range cfg.Container.Mounts {
		converted, err := mount(m, cfg)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.ContainerPath, err)
		}

		if slices.Contains(converted.Options, "rshared") {
			s.Linux.RootfsPropagation = "rshared"
		} else if slices.Contains(converted.Options, "rslave") && s.Linux.RootfsPropagation == "" {
			s.Linux.RootfsPropagation = "rslave"
		}

		all = append(all, converted)
	}

	slices.SortStableFunc(
		all,
		func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) },
	)

	s.Mounts = all
	return nil
}

// checkPaths returns an error for a path with a NUL byte: an OCI runtime that is written in C takes the part
// before it, which is another path than the one that was checked.
func checkPaths(s *specs.Spec) error {
	for _, m := range s.Mounts {
		if strings.ContainsRune(m.Source+m.Destination+strings.Join(m.Options, ""), 0) {
			return fmt.Errorf("mount %q has a NUL byte", m.Destination)
		}
	}
	for _, p := range append(slices.Clone(s.Linux.MaskedPaths), s.Linux.ReadonlyPaths...) {
		if strings.ContainsRune(p, 0) {
			return fmt.Errorf("masked or read-only path %q has a NUL byte", p)
		}
	}
	return nil
}

func depth(p string) int { return strings.Count(path.Clean(p), "/") }

// mount translates one mount of the container.
func mount(m *runtimeapi.Mount, cfg Config) (specs.Mount, error) {
	if m.ContainerPath == "" {
		return specs.Mount{}, fmt.Errorf("no container path")
	}
	if len(m.UidMappings)+len(m.GidMappings) > 0 {
		return specs.Mount{}, fmt.Errorf("id-mapped volumes are not supported")
	}

	source := m.HostPath
	if m.Image != nil && m.Image.Image != "" {
		if !m.Readonly {
			return specs.Mount{}, fmt.Errorf("an image volume must be read-only")
		}

		source = cfg.ImageMounts[m.ContainerPath]
	}

	if source == "" {
		return specs.Mount{}, fmt.Errorf("no host path")
	}

	propagation := map[runtimeapi.MountPropagation]string{
		runtimeapi.MountPropagation_PROPAGATION_PRIVATE:           "rprivate",
		runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
		runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
	}[m.Propagation]
	if propagation == "" {
		return specs.Mount{}, fmt.Errorf("unknown propagation %d", m.Propagation)
	}

	access := "rw"
	switch {
	case m.RecursiveReadOnly && (!m.Readonly || propagation != "rprivate"):
		return specs.Mount{}, fmt.Errorf("recursive read-only needs readonly and private propagation")
	case m.RecursiveReadOnly:
		access = "rro"
	case m.Readonly:
		access = "ro"
	}

	options := append([]string{"rbind", propagation, access}, m.MountOptions...)
	return specs.Mount{
		Destination: path.Join("/", m.ContainerPath),
		Type:        "bind",
		Source:      source,
		Options:     options,
	}, nil
}
