package spec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// mounts adds the kernel's filesystems, what the pod gives, and what the container asks for, parents before
// children. What the container asks for replaces the others at the same path.
func mounts(s *specs.Spec, cfg Config) error {
	all := append(kernelMounts(cfg), cfg.Files...)
	for _, m := range cfg.Container.Mounts {
		all = slices.DeleteFunc(all, func(other specs.Mount) bool {
			return path.Clean(other.Destination) == path.Clean(m.ContainerPath)
		})
	}

	var asked []specs.Mount
	for _, m := range cfg.Container.Mounts {
		converted, err := mount(m, cfg)
		if err != nil {
			return fmt.Errorf("mount %s: %w", m.ContainerPath, err)
		}

		asked = append(asked, converted)
	}

	all = append(all, asked...)
	slices.SortStableFunc(all, func(a, b specs.Mount) int {
		return depth(a.Destination) - depth(b.Destination)
	})
	s.Mounts = all
	s.Linux.RootfsPropagation = rootPropagation(asked)
	return nil
}

// rootPropagation returns the propagation that the container's root needs for the mounts that it asks for.
func rootPropagation(asked []specs.Mount) string {
	for _, propagation := range []string{"rshared", "rslave"} {
		for _, m := range asked {
			if slices.Contains(m.Options, propagation) {
				return propagation
			}
		}
	}
	return ""
}

// kernelMounts are the kernel's filesystems. Those in /sys are writable only for a privileged container.
func kernelMounts(cfg Config) []specs.Mount {
	access := "ro"
	if cfg.Container.GetLinux().GetSecurityContext().GetPrivileged() {
		access = "rw"
	}

	kernel := func(path, kind string, options ...string) specs.Mount {
		return specs.Mount{
			Destination: path,
			Type:        kind,
			Source:      kind,
			Options:     options,
		}
	}

	return []specs.Mount{
		kernel("/proc", "proc", "nosuid", "noexec", "nodev"),
		kernel("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
		kernel(
			"/dev/pts", "devpts",
			"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
		),
		kernel("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
		kernel("/sys", "sysfs", "nosuid", "noexec", "nodev", access),
		kernel("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", access),
	}
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
		return specs.Mount{}, errors.New("no container path")
	}
	// The files of an image are mounted by now, for this container.
	source := m.HostPath
	if m.Image != nil && m.Image.Image != "" {
		if !m.Readonly {
			return specs.Mount{}, errors.New("an image volume must be read-only")
		}

		source = cfg.ImageMounts[m.ContainerPath]
	}

	mapped, err := Maps(m, cfg.Users)
	if err != nil {
		return specs.Mount{}, err
	}
	if mapped {
		source = cfg.MappedMounts[m.ContainerPath]
	}

	if source == "" {
		return specs.Mount{}, errors.New("no host path")
	}

	propagation, ok := propagations[m.Propagation]
	if !ok {
		return specs.Mount{}, fmt.Errorf("unknown propagation %d", m.Propagation)
	}

	access, err := accessOf(m)
	if err != nil {
		return specs.Mount{}, err
	}

	// A mapped volume is read-only already. runc 1.1 cannot make it so in a user namespace: it would change
	// flags that are locked there.
	if mapped && access == "ro" {
		access = "rw"
	}

	return specs.Mount{
		Destination: path.Join("/", m.ContainerPath),
		Type:        "bind",
		Source:      source,
		Options:     append([]string{"rbind", propagation, access}, m.MountOptions...),
	}, nil
}

// propagations are the mount options of each propagation.
var propagations = map[runtimeapi.MountPropagation]string{
	runtimeapi.MountPropagation_PROPAGATION_PRIVATE:           "rprivate",
	runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER: "rslave",
	runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:     "rshared",
}

// accessOf returns the mount option that says whether a mount is writable.
func accessOf(m *runtimeapi.Mount) (string, error) {
	isPrivate := m.Propagation == runtimeapi.MountPropagation_PROPAGATION_PRIVATE
	switch {
	case m.RecursiveReadOnly && (!m.Readonly || !isPrivate):
		return "", errors.New("recursive read-only needs readonly and private propagation")
	case m.RecursiveReadOnly:
		return "rro", nil
	case m.Readonly:
		return "ro", nil
	}
	return "rw", nil
}
