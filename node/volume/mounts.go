package volume

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/boundedfile"
	"github.com/trivet-node/trivet/node/podenv"
	"github.com/trivet-node/trivet/node/subpath"
)

// Mount is one mount of a container, for the CRI call.
type Mount struct {
	// Name is that of the volume.
	Name string

	// HostPath is empty for an image volume.
	HostPath      string
	ContainerPath string
	ReadOnly      bool

	// Recursive says of a read-only mount whether the mounts below are read-only, too; empty stands for
	// Disabled.
	Recursive   v1.RecursiveReadOnlyMode
	Propagation v1.MountPropagationMode

	// Image is set for an image volume.
	Image        *v1.ImageVolumeSource
	ImageSubPath string
}

// RecursiveReadOnly reports whether the mounts below are to be read-only, too. supported says whether the
// runtime can do that; it is an error if the mount insists and the runtime cannot.
func (m *Mount) RecursiveReadOnly(supported bool) (bool, error) {
	refused := func(why string) (bool, error) {
		return false, fmt.Errorf("volume %q requested recursive read-only mode, but it is %s", m.Name, why)
	}

	switch {
	case m.Recursive == "" || m.Recursive == v1.RecursiveReadOnlyDisabled:
		return false, nil
	case !m.ReadOnly:
		return refused("not read-only")
	case m.Propagation != v1.MountPropagationNone:
		return refused(fmt.Sprintf("not compatible with propagation %q", m.Propagation))
	case m.Recursive == v1.RecursiveReadOnlyIfPossible:
		return supported, nil
	case m.Recursive != v1.RecursiveReadOnlyEnabled:
		return false, fmt.Errorf("unknown recursive read-only mode %q", m.Recursive)
	case !supported:
		return refused("not supported by the runtime")
	}

	return true, nil
}

// Device is one block volume of a container.
type Device struct {
	HostPath      string
	ContainerPath string
	ReadOnly      bool
}

// Container returns the volumeMounts and volumeDevices of a container, with subPath and subPathExpr resolved:
// the latter with the variables env. It does not wait for a Setup of the pod, which may wait for the API
// server. The caller makes sure that no Teardown begins meanwhile.
func (m *Mounter) Container(
	pod *v1.Pod,
	c *v1.Container,
	volumes *Volumes,
	env []podenv.Variable,
) ([]Mount, []Device, error) {
	var mounts []Mount
	for i := range c.VolumeMounts {
		wanted := &c.VolumeMounts[i]
		volume, ok := volumes.ByName[wanted.Name]
		if !ok {
			return nil, nil, fmt.Errorf("container %s: volume %q of mount %s is not mounted",
				c.Name, wanted.Name, wanted.MountPath)
		}

		bind := filepath.Join(m.dirs.subpaths(pod.UID), wanted.Name, c.Name, strconv.Itoa(i))
		mount, err := containerMount(wanted, volume, env, bind)
		if err != nil {
			return nil, nil, fmt.Errorf("container %s: volume mount %s: %w", c.Name, wanted.MountPath, err)
		}

		mounts = append(mounts, mount)
	}

	devices, err := containerDevices(c, volumes)
	return mounts, devices, err
}

// containerDevices returns the volumeDevices of a container.
func containerDevices(c *v1.Container, volumes *Volumes) ([]Device, error) {
	var devices []Device
	for _, wanted := range c.VolumeDevices {
		volume, ok := volumes.ByName[wanted.Name]
		if !ok || !volume.Block {
			return nil, fmt.Errorf("container %s: volume %q of device %s is not a block volume",
				c.Name, wanted.Name, wanted.DevicePath)
		}

		devices = append(devices, Device{
			HostPath:      volume.Path,
			ContainerPath: wanted.DevicePath,
			ReadOnly:      volume.ReadOnly,
		})
	}

	return devices, nil
}

// containerMount returns the mount of a volume or of a path in it. Such a path is bind-mounted on bind, and
// that is what the container gets.
func containerMount(
	wanted *v1.VolumeMount,
	volume Mounted,
	env []podenv.Variable,
	bind string,
) (Mount, error) {
	mount := whole(wanted, volume)
	sub, err := subPath(wanted, env)
	if err != nil || sub == "" {
		return mount, err
	}

	// The runtime resolves a path in an image by itself.
	if volume.Image != nil {
		mount.ImageSubPath = sub
		return mount, nil
	}

	err = subpath.Bind(volume.Path, sub, bind, subpath.Options{
		ReadOnly: volume.ReadOnly,
		Shared:   mount.Propagation == v1.MountPropagationBidirectional,
	})
	if err != nil {
		return Mount{}, fmt.Errorf("failed to prepare subPath for volumeMount %q: %w", wanted.Name, err)
	}

	mount.HostPath = bind
	return mount, nil
}

// whole returns the mount of the whole volume.
func whole(wanted *v1.VolumeMount, volume Mounted) Mount {
	mount := Mount{
		Name:          wanted.Name,
		HostPath:      volume.Path,
		ContainerPath: wanted.MountPath,
		ReadOnly:      wanted.ReadOnly || volume.ReadOnly,
		Propagation:   v1.MountPropagationNone,
		Image:         volume.Image,
	}
	if wanted.MountPropagation != nil {
		mount.Propagation = *wanted.MountPropagation
	}
	if wanted.RecursiveReadOnly != nil {
		mount.Recursive = *wanted.RecursiveReadOnly
	}
	if !filepath.IsAbs(mount.ContainerPath) {
		mount.ContainerPath = "/" + mount.ContainerPath
	}

	return mount
}

// subPath returns the path in the volume that the container wants, empty for the whole volume.
func subPath(wanted *v1.VolumeMount, env []podenv.Variable) (string, error) {
	sub := wanted.SubPath
	if wanted.SubPathExpr != "" {
		var err error
		if sub, err = expand(wanted.SubPathExpr, env); err != nil {
			return "", err
		}
	}

	if sub == "" {
		return "", nil
	}

	return sub, subpath.Check(sub)
}

// expand replaces $(NAME) in a subPathExpr. A variable that the container does not have is an error.
func expand(expr string, env []podenv.Variable) (string, error) {
	var missing []string
	lookup := podenv.Lookup(env)
	expanded := podenv.Expand(expr, func(name string) (string, bool) {
		value, ok := lookup(name)
		if !ok {
			missing = append(missing, name)
		}

		return value, ok
	})

	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %s in subPathExpr %q", strings.Join(missing, ", "), expr)
	}

	return expanded, nil
}

// EnvFile reads the variables of an env file (KEY=value lines, # comments) in a volume of the pod, for
// fileKeyRef. The file may have been written by a container: it is opened below the volume and read up to a
// limit.
func (m *Mounter) EnvFile(pod *v1.Pod, volume, path string) (map[string]string, error) {
	const maxSize = 64 << 10
	if err := subpath.Check(path); err != nil {
		return nil, err
	}

	dir := m.dirs.volume(pod.UID, emptyDirPlugin, volume)
	if _, err := os.Lstat(dir); errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("env file %q: volume %q is not a mounted emptyDir", path, volume)
	}

	f, err := boundedfile.OpenBelow(dir, path, os.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("env file %q in volume %q: %w", path, volume, err)
	}
	defer f.Close()

	data, err := boundedfile.Contents(f, maxSize)
	if err != nil {
		return nil, fmt.Errorf("env file %q in volume %q: %w", path, volume, err)
	}

	return podenv.ParseFile(data)
}
