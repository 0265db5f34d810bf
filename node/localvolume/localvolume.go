// Package localvolume mounts local persistent volumes as kubelet does: a directory of the node, or the file
// system of a block device, which is made when the device has none.
//
// A device is mounted once, at ROOT/plugins/kubernetes.io/local-volume/mounts/PV, and from there, as a
// directory from where it is, bind-mounted for each pod, at
// ROOT/pods/UID/volumes/kubernetes.io~local-volume/PV. Both are kubelet's paths, so that each agent takes
// down what the other has mounted. The mount of the device goes with the last pod that has the volume.
package localvolume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"

	"github.com/trivet-node/trivet/internal/fsgroup"
	"github.com/trivet-node/trivet/internal/keylock"
	"github.com/trivet-node/trivet/internal/mount"
)

// Plugin is the name of the volumes' directory in that of a pod.
const Plugin = "kubernetes.io~local-volume"

// Volume is what a pod wants of a persistent volume.
type Volume struct {
	// Name is that of the PersistentVolume.
	Name string

	// Path is that of a directory or of a block device on the node.
	Path string

	// FSType is the file system that an empty device gets, ext4 if it is empty.
	FSType string

	// Options are those of mount(8), option -o, for the file system of a device.
	Options []string

	// ReadOnly is whether the pod may only read. An empty device is refused then.
	ReadOnly bool

	// FSGroup is the group that gets the files before the first pod has the volume, nil for none. A volume
	// that is read-only keeps its groups.
	FSGroup *int64

	// OnRootMismatch leaves files alone whose directory at the top has the group (fsGroupChangePolicy).
	OnRootMismatch bool
}

// Of returns what a pod wants of a local persistent volume. The options are those of the annotation that
// Kubernetes used before, or else those of the spec.
func Of(pv *v1.PersistentVolume, readOnly bool) Volume {
	v := Volume{
		Name:     pv.Name,
		Path:     pv.Spec.Local.Path,
		Options:  pv.Spec.MountOptions,
		ReadOnly: readOnly,
	}
	if text := pv.Annotations[v1.MountOptionAnnotation]; text != "" {
		v.Options = strings.Split(text, ",")
	}
	if fsType := pv.Spec.Local.FSType; fsType != nil {
		v.FSType = *fsType
	}
	return v
}

// Mounter mounts volumes below a root directory.
type Mounter struct {
	root  string
	locks keylock.Locks[string] // by the name of the volume
}

// New returns a mounter for kubelet's root directory. It touches nothing yet.
func New(root string) *Mounter { return &Mounter{root: root} }

// Device returns the path of a volume that is used as a block device.
func Device(v Volume) (string, error) {
	info, err := os.Stat(v.Path)
	switch {
	case err != nil:
		return "", fmt.Errorf("local volume %q: %w", v.Name, err)
	case !isBlockDevice(info):
		return "", fmt.Errorf("local volume %q: %s is not a block device", v.Name, v.Path)
	}

	return v.Path, nil
}

func isBlockDevice(info fs.FileInfo) bool {
	return info.Mode()&(fs.ModeDevice|fs.ModeCharDevice) == fs.ModeDevice
}

// Mount mounts the volume at dir, that of the volume in a pod's directory, unless something is mounted there:
// then its files are the pod's, whatever groups and modes it has given them.
func (m *Mounter) Mount(ctx context.Context, v Volume, dir string) error {
	unlock, err := m.locks.Lock(ctx, v.Name)
	if err != nil {
		return fmt.Errorf("mount local volume %q: %w", v.Name, err)
	}
	defer unlock()

	// The directory comes first: while a pod has it, the device stays mounted.
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if there, err := mount.Mounted(dir); there || err != nil {
		return err
	}

	source, err := m.source(ctx, v)
	if err != nil {
		return fmt.Errorf("local volume %q: %w", v.Name, err)
	}

	if shared, err := m.shared(v.Name); err != nil {
		return fmt.Errorf("local volume %q: %w", v.Name, err)
	} else if !shared {
		if err := giveToGroup(ctx, v, source); err != nil {
			return fmt.Errorf("local volume %q: %w", v.Name, err)
		}
	}

	// What the host mounts in a directory comes along, and does not go with the pod.
	return mount.Bind(source, dir, mount.BindOptions{ReadOnly: v.ReadOnly})
}

// giveToGroup gives the files below source, which may be a link that the administrator has made, to the group
// that the pod wants.
func giveToGroup(ctx context.Context, v Volume, source string) error {
	if v.FSGroup == nil || v.ReadOnly {
		return nil
	}

	fd, err := unix.Open(source, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", source, err)
	}
	root := os.NewFile(uintptr(fd), source)
	defer root.Close()

	return fsgroup.ApplyTo(ctx, root, *v.FSGroup, false, v.OnRootMismatch)
}

// source is the directory that pods get: that of the volume, or where its device is mounted.
func (m *Mounter) source(ctx context.Context, v Volume) (string, error) {
	info, err := os.Stat(v.Path)
	switch {
	case err != nil:
		return "", err
	case info.IsDir():
		return v.Path, nil
	case !isBlockDevice(info):
		return "", fmt.Errorf("%s is neither a directory nor a block device", v.Path)
	}

	point := m.point(v.Name)
	there, err := mount.Mounted(point)
	if err != nil {
		return "", err
	}
	if there {
		return point, checkDevice(point, info)
	}

	return point, stage(ctx, v, point)
}

// point is where the device of a volume is mounted.
func (m *Mounter) point(name string) string {
	return filepath.Join(m.root, "plugins", "kubernetes.io", "local-volume", "mounts", name)
}

// Teardown unmounts the local volumes of a pod, and the devices that no other pod has. volumes is the
// directory of the pod's volumes, ROOT/pods/UID/volumes. It works from what is on disk alone.
func (m *Mounter) Teardown(ctx context.Context, volumes string) error {
	dirs, err := filepath.Glob(filepath.Join(escaped(volumes), Plugin, "*"))
	if err != nil {
		return err
	}

	for _, dir := range dirs {
		if err := m.unmount(ctx, dir); err != nil {
			return fmt.Errorf("local volume %q: %w", filepath.Base(dir), err)
		}
	}

	return nil
}

// unmount takes a volume from a pod. The directory goes last, so that what is interrupted is done again.
func (m *Mounter) unmount(ctx context.Context, dir string) error {
	name := filepath.Base(dir)
	unlock, err := m.locks.Lock(ctx, name)
	if err != nil {
		return err
	}
	defer unlock()

	if err := mount.Unmount(dir); err != nil {
		return err
	}

	users, err := m.users(name)
	if err != nil {
		return err
	}
	if len(users) <= 1 {
		if err := m.unstage(name); err != nil {
			return err
		}
	}

	return remove(dir)
}

// users are the directories of pods that have the volume, or are about to.
func (m *Mounter) users(name string) ([]string, error) {
	return filepath.Glob(filepath.Join(escaped(m.root), "pods", "*", "volumes", Plugin, escaped(name)))
}

// shared reports whether a pod of this node has the volume mounted: its files have the groups and modes that
// the pod wants.
func (m *Mounter) shared(name string) (bool, error) {
	users, err := m.users(name)
	if err != nil {
		return false, err
	}

	for _, dir := range users {
		if is, err := mount.Mounted(dir); is || err != nil && !errors.Is(err, fs.ErrNotExist) {
			return is, err
		}
	}

	return false, nil
}

// unstage unmounts the device of a volume. A directory has none.
func (m *Mounter) unstage(name string) error {
	point := m.point(name)
	if err := mount.Unmount(point); err != nil {
		return err
	}
	return remove(point)
}

// remove removes an empty directory, which may be gone.
func remove(dir string) error {
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// escaped is a path as a pattern of filepath.Glob that only the path matches.
func escaped(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}
