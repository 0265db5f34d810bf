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
	Name          string
	HostPath      string
	ContainerPath string
	ReadOnly      bool
	Recursive     v1.RecursiveReadOnlyMode // of a read-only mount; empty: disabled
	Propagation   v1.MountPropagationMode
	Image         *v1.ImageVolumeSource // then HostPath is empty
	ImageSubPath  string
	ImageID       string // the runtime's, once it is there and the pod may use it
}

// RecursiveReadOnly reports whether the mounts below are read-only, too. supported is whether the runtime
// can.
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
	HostPath, ContainerPath string
	ReadOnly                bool
}

// Container resolves the volumeMounts and volumeDevices of a container, subPath and subPathExpr (with env)
// included. It does not wait for a Setup, which may wait for the API server; the caller sees to it that no
// Teardown begins meanwhile.
func (m *Manager) Container(
	pod *v1.Pod,
	c *v1.Container,
	volumes *Volumes,
	env []podenv.Variable,
) ([]Mount, []Device, error) {
	var mounts []Mount
	for i := range c.VolumeMounts {
		vm := &c.VolumeMounts[i]
		vol, ok := volumes.ByName[vm.Name]
		if !ok {
			return nil, nil, fmt.Errorf("container %s: volume %q of mount %s is not mounted",
				c.Name, vm.Name, vm.MountPath)
		}

		mount, err := m.containerMount(pod, c.Name, i, vm, vol, env)
		if err != nil {
			return nil, nil, fmt.Errorf("container %s: volume mount %s: %w", c.Name, vm.MountPath, err)
		}

		mounts = append(mounts, mount)
	}

	var devices []Device
	for _, vd := range c.VolumeDevices {
		vol, ok := volumes.ByName[vd.Name]
		if !ok || !vol.Block {
			return nil, nil, fmt.Errorf("container %s: volume %q of device %s is not a block volume",
				c.Name, vd.Name, vd.DevicePath)
		}

		devices = append(
			devices,
			Device{HostPath: vol.Path, ContainerPath: vd.DevicePath, ReadOnly: vol.ReadOnly},
		)
	}

	return mounts, devices, nil
}

func (m *Manager) containerMount(
	pod *v1.Pod,
	container string,
	index int,
	vm *v1.VolumeMount,
	vol Mounted,
	env []podenv.Variable,
) (Mount, error) {
	out := Mount{
		Name:          vm.Name,
		HostPath:      vol.Path,
		ContainerPath: vm.MountPath,
		ReadOnly:      vm.ReadOnly || vol.ReadOnly,
		Propagation:   v1.MountPropagationNone,
		Image:         vol.Image,
	}
	if vm.MountPropagation != nil {
		out.Propagation = *vm.MountPropagation
	}
	if vm.RecursiveReadOnly != nil {
		out.Recursive = *vm.RecursiveReadOnly
	}
	if !filepath.IsAbs(out.ContainerPath) {
		out.ContainerPath = "/" + out.ContainerPath
	}

	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		var missing []string
		lookup := podenv.Lookup(env)
		sub = podenv.Expand(vm.SubPathExpr, func(name string) (string, bool) {
			v, ok := lookup(name)
			if !ok {
				missing = append(missing, name)
			}

			return v, ok
		})
		if len(missing) > 0 {
			return Mount{}, fmt.Errorf("missing value for %s in subPathExpr %q",
				strings.Join(missing, ", "), vm.SubPathExpr)
		}
	}

	if sub == "" {
		return out, nil
	}
	if err := subpath.Check(sub); err != nil {
		return Mount{}, err
	}

	if vol.Image != nil {
		out.ImageSubPath = sub
		return out, nil
	}

	target := filepath.Join(m.subpathsDir(pod.UID), vm.Name, container, strconv.Itoa(index))
	if err := subpath.Bind(vol.Path, sub, target, vol.ReadOnly); err != nil {
		return Mount{}, fmt.Errorf("failed to prepare subPath for volumeMount %q of container %q: %w",
			vm.Name, container, err)
	}

	out.HostPath = target
	return out, nil
}

// EnvFile reads the variables of an env file (KEY=value lines, # comments) in a volume of the pod, for
// fileKeyRef. The file may have been written by a container: it is opened below the volume and read up to a
// limit.
func (m *Manager) EnvFile(pod *v1.Pod, volume, path string) (map[string]string, error) {
	const maxSize = 64 << 10
	if err := subpath.Check(path); err != nil {
		return nil, err
	}

	dir := m.volumeDir(pod.UID, emptyDirPlugin, volume)
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
